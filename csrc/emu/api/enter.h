/* How every exported function begins. */
#ifndef AXPRESS_EMU_ENTER_H
#define AXPRESS_EMU_ENTER_H

#include "../machine/device.h"
#include "exports.h"

typedef enum emu_need { EMU_NEEDS_NOTHING, EMU_NEEDS_INIT, EMU_NEEDS_CONTEXT } emu_need;

/* Counts the call, applies faults, checks initialisation and the thread's context. With EMU_NEEDS_CONTEXT, *device is
 * the context's device, online. */
axclError emu_enter(emu_fn fn, emu_need need, emu_device **device);
/* The same for a call with an explicit stream, whose device it is for where the thread has no context. */
axclError emu_enter_stream(emu_fn fn, axclrtStream stream, emu_device **device);

#endif
