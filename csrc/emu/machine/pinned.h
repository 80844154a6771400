/* Pinned host memory. */
#ifndef AXPRESS_EMU_PINNED_H
#define AXPRESS_EMU_PINNED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../axcl_abi.h"

/* NULL: the host is out of memory. */
void *emu_pinned_allocate(size_t size);
/* false: not the beginning of pinned memory, or freed already. */
bool emu_pinned_free(void *pointer);
/* Is pointer in pinned memory, and how many bytes are there from it to the end? */
bool emu_pinned_find(const void *pointer, size_t *available);
void emu_pinned_wipe(bool report);
uint64_t emu_pinned_used(void);

#endif
