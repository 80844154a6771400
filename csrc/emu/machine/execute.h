/* Executes: a plan in use, and running it. */
#ifndef AXPRESS_EMU_EXECUTE_H
#define AXPRESS_EMU_EXECUTE_H

#include "device.h"

typedef struct emu_plan emu_plan;

void emu_execute_begun(emu_plan *plan); /* an execute was accepted ... */
void emu_execute_ended(emu_plan *plan); /* ... and has ended; returns the reference to the plan */
/* Does the work; *ready is the end of the previous operation and becomes the end of this one. */
axclError emu_execute_run(emu_plan *plan, emu_device *device, int64_t submitted, int64_t *ready);

#endif
