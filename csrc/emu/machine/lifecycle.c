/* From axclInit to axclFinalize: opening the devices, what a reset takes with it, closing everything. */
#include "lifecycle.h"

#include <sched.h>
#include <string.h>

#include "context.h"
#include "event.h"
#include "faults.h"
#include "io.h"
#include "loaded.h"
#include "pinned.h"
#include "profile.h"
#include "settings.h"
#include "stream.h"

/* What is wrong with a card outlives the runtime that used it: until a reboot, or until other faults are set. */
static void keep_condition(emu_device *device, const emu_device *before)
{
    if (emu_faults_are_new()) return;
    device->state = before->state;
    device->heat = before->heat;
    device->back_at = before->back_at;
    device->memory.leaked = before->memory.leaked;
}

axclError emu_machine_open(void)
{
    static emu_device before;
    int64_t mib = emu_config.memory_mib ? emu_config.memory_mib : emu_profile_cmm_mib();
    int first = emu_config.first_device >= 0 ? emu_config.first_device : emu_config.ax8860 ? 0 : 1;
    for (int i = 0; i < emu_config.devices; i++) {
        emu_device *device = &emu_devices[i];
        before = *device;
        memset(device, 0, sizeof *device);
        device->generation = before.generation + 1;
        keep_condition(device, &before);
        device->id = first + i; /* 3.x: the number of the PCI bus; next generation: counted from 0 */
        pthread_mutex_init(&device->npu, NULL);
        pthread_mutex_init(&device->clock, NULL);
        axclError error = emu_memory_open(device, mib, emu_profile_idle_mib());
        if (error) {
            while (i--) emu_memory_close(&emu_devices[i]);
            return error;
        }
    }
    emu_num_devices = emu_config.devices;
    emu_faults_devices();
    emu_faults_begun();
    return 0;
}

/* Order: what waits gives up, then streams (they use everything), models, memory, contexts. */
void emu_device_wipe(emu_device *device, bool report)
{
    device->generation++;
    emu_release();
    emu_streams_wipe(device, report);
    emu_ios_wipe(device, report);
    emu_models_wipe(device, report);
    emu_memory_wipe(device, report);
    emu_contexts_wipe(device, report);
    device->executed = device->layer_loaded = false;
    pthread_mutex_lock(&device->clock);
    for (int i = 0; i < EMU_NUM_RESOURCES; i++) device->free_at[i] = 0;
    device->busy_until = 0;
    pthread_mutex_unlock(&device->clock);
}

void emu_machine_close(void)
{
    for (int i = 0; i < emu_num_devices; i++) {
        emu_device_wipe(&emu_devices[i], true);
        while (emu_devices[i].working) sched_yield(); /* hanging ones have given up; others are in its memory */
        emu_memory_close(&emu_devices[i]);
    }
    emu_events_wipe(true);
    emu_pinned_wipe(true);
    emu_engine_ready = false;
    emu_num_devices = 0;
}
