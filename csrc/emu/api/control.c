/* The control interface, which no card has: axemu_*, except for the report. */
#include "../machine/configure.h"
#include "../machine/counters.h"
#include "../machine/device.h"
#include "../machine/errors.h"
#include "exports.h"

const char *axemu_version(void) { return EMU_VERSION; }

const char *axemu_last_error(void) { return emu_last_error(); }

int axemu_set(const char *key, const char *value) { return emu_settings_set(key, value); }

int axemu_reset_counters(void)
{
    emu_counters_reset();
    for (int i = 0; i < EMU_MAX_DEVICES; i++) emu_devices[i].busy_ns = 0;
    return 0;
}
