/* The settings with their defaults; they lie below everything that obeys them. */
#include "settings.h"

emu_settings emu_config = {
    .strict = true,
    .inplace_decode = EMU_INPLACE_WORKS,
    .inplace_chunk = EMU_INPLACE_LOST,
    .inplace_unaligned = EMU_INPLACE_LOST,
    .async = EMU_ASYNC_YES,
    .narrow_output = true,
    .head_first = EMU_ORDER_REFUSED,
    .load_time = true,
    .pinned = true,
    .temperature = 45000,
    .thermal_ms = 60000,
    .reboot_ms = 0,
    .hang_ms = 60000,
    .devices = 1,
    .first_device = -1,
};

atomic_uint emu_settings_version;
