/* The table of devices. */
#include "device.h"

#include "errors.h"

pthread_mutex_t emu_lifecycle = PTHREAD_MUTEX_INITIALIZER;
atomic_bool emu_initialised;
emu_device emu_devices[EMU_MAX_DEVICES];
int emu_num_devices;

emu_device *emu_device_by_id(int32_t id)
{
    for (int i = 0; i < emu_num_devices; i++)
        if (emu_devices[i].id == id) return &emu_devices[i];
    return NULL;
}

axclError emu_offline_error(const emu_device *device)
{
    if (device->state == EMU_ONLINE) return 0;
    return emu_refuse(AXCL_ERR_DEVICE_NOT_CONNECTED, "device %d is %s", device->id,
        device->state == EMU_DEAD ? "dead: only power can bring it back" : "offline until it is rebooted");
}
