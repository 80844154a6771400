/* From axclInit to axclFinalize. The caller holds emu_lifecycle. */
#ifndef AXPRESS_EMU_LIFECYCLE_H
#define AXPRESS_EMU_LIFECYCLE_H

#include "device.h"

/* As many devices as the settings say, with the memory they say. */
axclError emu_machine_open(void);
/* Stops and forgets everything of a device; what was left open is named if `report`. */
void emu_device_wipe(emu_device *device, bool report);
/* Wipes all devices and what belongs to none, naming what was left open. */
void emu_machine_close(void);

#endif
