/* Devices: the table of them, and the state that each has.
 *
 * Locks of the whole runtime, in the order in which they may be taken: emu_lifecycle, an io's lock, a stream's submit
 * lock, a device's npu, a device's memory, a device's clock, and the small ones (faults, handles, last error) that call
 * nothing.
 */
#ifndef AXPRESS_EMU_DEVICE_H
#define AXPRESS_EMU_DEVICE_H

#include "memory.h"

#define EMU_MAX_DEVICES 8

typedef enum emu_state { EMU_ONLINE = 0, EMU_OFFLINE, EMU_DEAD } emu_state;
enum { EMU_RESOURCE_NPU, EMU_RESOURCE_UP, EMU_RESOURCE_DOWN, EMU_RESOURCE_DMA, EMU_NUM_RESOURCES };

struct emu_device {
    int id;
    _Atomic int state;             /* emu_state */
    _Atomic uint32_t generation;   /* changes with reset and reboot: what waits on the device gives up */
    int set_count;                 /* axclrtSetDevice less axclrtResetDevice */
    uint64_t default_context;
    int64_t back_at;               /* ns; until then a rebooted device is missing */
    emu_memory memory;
    pthread_mutex_t npu;           /* one execute at a time */
    atomic_bool executed;          /* since the first model was loaded */
    atomic_int working;            /* synchronous calls that compute, on their own threads */
    atomic_int models;
    atomic_bool layer_loaded;      /* since there were no models, also to be asked about and unloaded again */
    atomic_int heat;               /* millidegrees added by the temperature fault */
    pthread_mutex_t clock;         /* the timeline, see pacing.c */
    int64_t free_at[EMU_NUM_RESOURCES];
    int64_t busy_until;
    _Atomic uint64_t busy_ns;      /* modelled, since the counters were reset */
    double rise;                   /* of the thermal model: millidegrees above idle, at `warmed_at` */
    int64_t warmed_at;
};

extern pthread_mutex_t emu_lifecycle; /* init, finalize, set, reset, engine init, load, unload */
extern atomic_bool emu_initialised;
extern emu_device emu_devices[EMU_MAX_DEVICES];
extern int emu_num_devices;

emu_device *emu_device_by_id(int32_t id); /* NULL: no such device */
/* 0 while the device is online; otherwise the error of every call for it, with a sentence. */
axclError emu_offline_error(const emu_device *device);

#endif
