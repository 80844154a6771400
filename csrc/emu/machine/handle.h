/* Handles: numbers that are no addresses, checked at every use. */
#ifndef AXPRESS_EMU_HANDLE_H
#define AXPRESS_EMU_HANDLE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum emu_kind {
    EMU_CONTEXT = 1,
    EMU_STREAM,
    EMU_EVENT,
    EMU_IO_INFO,
    EMU_IO,
    EMU_MODEL,
    EMU_ENGINE_CONTEXT
} emu_kind;

uint64_t emu_handle_new(emu_kind kind, void *object); /* 0: too many */
void *emu_handle_get(emu_kind kind, uint64_t handle); /* NULL: unknown or closed */
bool emu_handle_close(uint64_t handle); /* false: it was closed already, perhaps by another thread just now */
/* Calls visit(object, arg) for every open handle of a kind. */
void emu_handle_each(emu_kind kind, void (*visit)(uint64_t handle, void *object, void *arg), void *arg);

static inline void *emu_as_pointer(uint64_t handle) { return (void *)(uintptr_t)handle; }
static inline uint64_t emu_as_number(const void *pointer) { return (uint64_t)(uintptr_t)pointer; }

#endif
