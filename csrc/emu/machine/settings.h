/* The settings that hold now. README.md describes them; configure.c reads them from text. */
#ifndef AXPRESS_EMU_SETTINGS_H
#define AXPRESS_EMU_SETTINGS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { EMU_ASYNC_REFUSED = 0, EMU_ASYNC_YES = 1, EMU_ASYNC_SYNC = 2 };
enum { EMU_INPLACE_LOST = 0, EMU_INPLACE_WORKS = 1, EMU_INPLACE_ERROR = 2, EMU_INPLACE_DOWN = 3 };
enum { EMU_ORDER_FREE = 0, EMU_ORDER_REFUSED = 1, EMU_ORDER_OFFLINE = 2 };

typedef struct emu_settings {
    atomic_bool strict;
    atomic_int inplace_decode, inplace_chunk; /* EMU_INPLACE_* */
    atomic_int inplace_unaligned;             /* the same for decode rows that begin on no 2 KiB boundary */
    atomic_int async;                         /* EMU_ASYNC_* */
    atomic_bool narrow_output;                /* chunk groups narrower than 64 write `output` */
    atomic_int head_first;                    /* EMU_ORDER_*: a head loaded after a layer */
    atomic_bool late_load;                    /* a model may be loaded after the first execute */
    atomic_bool load_time;                    /* loading takes the profile's time */
    atomic_bool pinned;                       /* memory from axclrtMallocHost transfers as pinned memory does */
    atomic_int temperature;                   /* millidegrees Celsius */
    atomic_int thermal_rise, thermal_ms;      /* millidegrees at full load, time constant; see pacing.c */
    atomic_int reboot_ms;                     /* how long a rebooted device is missing from the list */
    atomic_int hang_ms;                       /* bound of a hang that nothing releases */
    atomic_bool counters;                     /* print the report when the process ends */
    int devices, first_device;                /* this line and the next two: read by axclInit; -1: the generation's */
    int64_t memory_mib;                       /* 0: the profile's */
    atomic_bool ax8860;                       /* the runtime of the next generation of cards */
} emu_settings;

extern emu_settings emu_config;
extern atomic_uint emu_settings_version; /* changes with every axemu_set */

#endif
