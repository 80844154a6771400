/* Process and devices: init, finalize, the device list, set and reset, reboot, properties, and how the next generation
 * tells them. */
#include <stdio.h>
#include <string.h>

#include "../arithmetic/model.h"
#include "../machine/configure.h"
#include "../machine/context.h"
#include "../machine/counters.h"
#include "../machine/errors.h"
#include "../machine/faults.h"
#include "../machine/handle.h"
#include "../machine/lifecycle.h"
#include "../machine/pacing.h"
#include "../machine/settings.h"
#include "../machine/stream.h"
#include "enter.h"

#define VERSION_MAJOR 3
#define VERSION_MINOR 6
#define VERSION_PATCH 0

/* axclInit again is no error; on AX8860 it is counted, elsewhere the first axclFinalize ends everything. Under
 * emu_lifecycle. */
static int num_more_inits;

/* ---- process ----------------------------------------------------------------------------------------------------- */

axclError axclInit(const char *config)
{
    (void)config; /* the vendor's JSON configures logging only */
    axclError error = 0;
    if (emu_settings_load()) return AXCL_ERROR(AXCL_SUB_CONFIG, AXCL_ID_ILLEGAL_PARAM);
    if ((error = emu_enter(EMU_FN_axclInit, EMU_NEEDS_NOTHING, NULL))) return error;
    if (emu_fault_no_driver())
        return emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_OPEN),
            "/dev/axcl_host cannot be opened: the fault list took the kernel module away");
    pthread_mutex_lock(&emu_lifecycle);
    if (emu_initialised) {
        num_more_inits += emu_config.ax8860;
    } else if (!(error = emu_machine_open())) {
        emu_leaks_clear();
        emu_initialised = true;
    }
    pthread_mutex_unlock(&emu_lifecycle);
    return error;
}

/* Where nothing is initialised there is nothing to do: that is no error. */
axclError axclFinalize(void)
{
    axclError error = emu_enter(EMU_FN_axclFinalize, EMU_NEEDS_NOTHING, NULL);
    if (error) return error;
    pthread_mutex_lock(&emu_lifecycle);
    bool last = emu_initialised && !num_more_inits;
    if (last) emu_machine_close();
    else if (num_more_inits) num_more_inits--;
    emu_initialised = emu_initialised && !last;
    pthread_mutex_unlock(&emu_lifecycle);
    if (!last) return 0;
    emu_threads_stop();
    if (emu_config.strict) emu_leaks_print();
    return 0;
}

axclError axclrtGetVersion(int32_t *major, int32_t *minor, int32_t *patch)
{
    axclError error = emu_enter(EMU_FN_axclrtGetVersion, EMU_NEEDS_NOTHING, NULL);
    if (error) return error;
    if (!major || !minor || !patch) return AXCL_ERROR(AXCL_SUB_SYSCTRL, AXCL_ID_NULL_POINTER);
    *major = VERSION_MAJOR, *minor = VERSION_MINOR, *patch = VERSION_PATCH;
    return 0;
}

const char *axclrtGetFullVersion(void)
{
    return emu_enter(EMU_FN_axclrtGetFullVersion, EMU_NEEDS_NOTHING, NULL) ? NULL : EMU_VERSION;
}

const char *axclrtGetSocName(void)
{
    if (emu_enter(EMU_FN_axclrtGetSocName, EMU_NEEDS_NOTHING, NULL)) return NULL;
    return emu_config.ax8860 ? "AX8860 (emulated)" : "AX650N (emulated)";
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

static axclError device_error(int id, const char *format, int32_t device)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, id), format, (int)device); /* formats below, each with one %d */
}

/* Offline devices are not in the list, nor are those that have not come back from a reboot. */
static bool listed(const emu_device *device)
{
    return device->state == EMU_ONLINE && (!device->back_at || emu_now() >= device->back_at);
}

axclError axclrtGetDeviceList(axclrtDeviceList *list)
{
    axclError error = emu_enter(EMU_FN_axclrtGetDeviceList, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    if (!list) return AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_NULL_POINTER);
    list->num = 0;
    for (int i = 0; i < emu_num_devices; i++)
        if (listed(&emu_devices[i])) list->devices[list->num++] = emu_devices[i].id;
    return 0;
}

axclError axclrtGetDeviceCount(uint32_t *count)
{
    axclError error = emu_enter(EMU_FN_axclrtGetDeviceCount, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    if (!count) return AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_NULL_POINTER);
    *count = 0;
    for (int i = 0; i < emu_num_devices; i++) *count += listed(&emu_devices[i]);
    return 0;
}

axclError axclrtSetDevice(int32_t id)
{
    axclError error = emu_enter(EMU_FN_axclrtSetDevice, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    pthread_mutex_lock(&emu_lifecycle);
    emu_device *device = emu_device_by_id(id);
    if (!device)
        error = device_error(AXCL_ID_DEVICE_INVALID_ID, "there is no device %d: axclrtGetDeviceList names them", id);
    else if (!(error = emu_offline_error(device)) && !listed(device))
        error = device_error(AXCL_ID_DEVICE_NOT_CONNECTED, "device %d is still rebooting", id);
    if (!error && !device->default_context) error = emu_context_make(device, false, &device->default_context);
    if (!error) {
        device->set_count++;
        emu_context_bind(device->default_context);
    }
    pthread_mutex_unlock(&emu_lifecycle);
    return error;
}

typedef struct tally {
    emu_device *device;
    int streams, contexts;
} tally;

static void count_context(uint64_t handle, void *object, void *arg)
{
    (void)handle;
    tally *t = arg;
    emu_context *context = object;
    t->contexts += context->explicit_one && context->device == t->device;
}

static void count_stream(uint64_t handle, void *object, void *arg)
{
    (void)handle;
    tally *t = arg;
    t->streams += emu_stream_device(object) == t->device;
}

static axclError check_closed(emu_device *device)
{
    tally t = {.device = device};
    emu_handle_each(EMU_STREAM, count_stream, &t);
    emu_handle_each(EMU_CONTEXT, count_context, &t);
    if (!t.streams && !t.contexts) return 0;
    return emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_BUSY),
        "device %d cannot be reset: %d streams and %d explicit contexts must be destroyed first", device->id, t.streams,
        t.contexts);
}

axclError axclrtResetDevice(int32_t id)
{
    axclError error = emu_enter(EMU_FN_axclrtResetDevice, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    pthread_mutex_lock(&emu_lifecycle);
    emu_device *device = emu_device_by_id(id);
    if (!device) error = device_error(AXCL_ID_DEVICE_INVALID_ID, "there is no device %d", id);
    else if (!device->set_count)
        error = device_error(AXCL_ID_DEVICE_NOT_ACTIVE, "device %d was reset more often than set", id);
    else if (device->set_count == 1 && emu_config.strict) error = check_closed(device);
    if (!error && --device->set_count == 0) emu_device_wipe(device, true);
    pthread_mutex_unlock(&emu_lifecycle);
    return error;
}

/* Everything the process had on the card is gone, the link is up again, memory is as at power-on. */
axclError axclrtRebootDevice(int32_t id)
{
    axclError error = emu_enter(EMU_FN_axclrtRebootDevice, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    pthread_mutex_lock(&emu_lifecycle);
    emu_device *device = emu_device_by_id(id);
    if (!device) error = device_error(AXCL_ID_DEVICE_INVALID_ID, "there is no device %d", id);
    else if (device->state == EMU_DEAD)
        error = device_error(AXCL_ID_DEVICE_REBOOT, "device %d is dead: a reboot does not help", id);
    if (!error) {
        emu_device_wipe(device, false);
        device->memory.leaked = 0;
        device->heat = 0;
        device->set_count = 0;
        device->state = EMU_ONLINE;
        device->back_at = emu_now() + (int64_t)emu_config.reboot_ms * 1000000;
    }
    pthread_mutex_unlock(&emu_lifecycle);
    return error;
}

axclError axclrtGetDevice(int32_t *id)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtGetDevice, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!id) return AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_NULL_POINTER);
    *id = device->id;
    return 0;
}

/* ---- what devices say of themselves ------------------------------------------------------------------------------ */

#define SYSTEM_KIB (1024u * 1024)
#define SYSTEM_FREE_KIB (900u * 1024)

static uint32_t pci_bus(const emu_device *device)
{
    return emu_config.ax8860 ? 1 + (uint32_t)(device - emu_devices) : (uint32_t)device->id;
}

static uint64_t uid(const emu_device *device) { return 0x61786d75u + (unsigned)device->id; }

static uint64_t free_cmm(emu_device *device)
{
    uint64_t total = emu_memory_total(device);
    pthread_mutex_lock(&device->memory.lock);
    uint64_t used = device->memory.used + device->memory.leaked;
    pthread_mutex_unlock(&device->memory.lock);
    return total > used ? total - used : 0;
}

axclError axclrtGetDeviceProperties(int32_t id, axclrtDeviceProperties *out)
{
    axclError error = emu_enter(EMU_FN_axclrtGetDeviceProperties, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_NULL_POINTER);
    emu_device *device = emu_device_by_id(id);
    if (!device) return device_error(AXCL_ID_DEVICE_INVALID_ID, "there is no device %d", id);
    if ((error = emu_offline_error(device))) return error;
    memset(out, 0, sizeof *out);
    snprintf(out->swVersion, sizeof out->swVersion, "V%d.%d.%d emulated", VERSION_MAJOR, VERSION_MINOR, VERSION_PATCH);
    out->uid = uid(device);
    out->pciBusID = pci_bus(device);
    out->temperature = emu_fault_temperature(device) + emu_time_rise(device);
    out->totalMemSize = SYSTEM_KIB, out->freeMemSize = SYSTEM_FREE_KIB;
    out->totalCmmSize = (uint32_t)(emu_memory_total(device) >> 10);
    out->freeCmmSize = (uint32_t)(free_cmm(device) >> 10);
    return 0;
}

axclError axclrtGetDeviceInfo(int32_t id, axclrtDevAttr attribute, uint64_t *value)
{
    axclError error = emu_enter(EMU_FN_axclrtGetDeviceInfo, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    if (!value) return AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_NULL_POINTER);
    emu_device *device = emu_device_by_id(id);
    if (!device) return device_error(AXCL_ID_DEVICE_INVALID_ID, "there is no device %d", id);
    if (attribute == AXCL_DEVICE_UID && !device->set_count)
        return device_error(AXCL_ID_DEVICE_NOT_ACTIVE, "device %d tells its uid after axclrtSetDevice only", id);
    const uint64_t values[] = {(uint64_t)(device - emu_devices), 1, uid(device), 0, pci_bus(device), 0, 0};
    if ((unsigned)attribute >= sizeof values / sizeof *values)
        return device_error(AXCL_ID_ILLEGAL_PARAM, "device %d has no such attribute", id);
    *value = values[attribute];
    return 0;
}

axclError axclrtGetMemInfo(axclrtMemAttr memory, size_t *free_bytes, size_t *total_bytes)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtGetMemInfo, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!free_bytes && !total_bytes) return AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_NULL_POINTER);
    if ((unsigned)memory > AXCL_MEMORY_SYSTEM)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_ILLEGAL_PARAM), "the memory is CMM (0) or system (1)");
    bool cmm = memory == AXCL_MEMORY_CMM;
    if (free_bytes) *free_bytes = cmm ? free_cmm(device) : (size_t)SYSTEM_FREE_KIB << 10;
    if (total_bytes) *total_bytes = cmm ? emu_memory_total(device) : (size_t)SYSTEM_KIB << 10;
    return 0;
}

axclError axclrtQueryDeviceStatus(int32_t id, axclrtDeviceStatus *status)
{
    axclError error = emu_enter(EMU_FN_axclrtQueryDeviceStatus, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    if (!status) return AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_NULL_POINTER);
    emu_device *device = emu_device_by_id(id);
    bool normal = device && device->set_count && listed(device);
    *status = normal ? AXCL_DEVICE_NORMAL : AXCL_DEVICE_ABNORMAL;
    return 0;
}
