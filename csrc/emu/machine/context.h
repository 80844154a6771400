/* Contexts: which device a thread's calls are for. */
#ifndef AXPRESS_EMU_CONTEXT_H
#define AXPRESS_EMU_CONTEXT_H

#include "device.h"

typedef struct emu_context {
    uint64_t handle;
    emu_device *device;
    bool explicit_one; /* made by axclrtCreateContext */
    struct emu_context *next_closed;
} emu_context;

emu_context *emu_context_current(void); /* NULL: none bound, or closed */
void emu_context_bind(uint64_t handle);
axclError emu_context_make(emu_device *device, bool explicit_one, uint64_t *handle);
void emu_context_retire(emu_context *context); /* the caller holds emu_lifecycle, as for the next */
void emu_contexts_wipe(emu_device *device, bool report);

#endif
