/* Models on devices: installing, what the card would punish, removing. */
#include "loaded.h"

#include <stdlib.h>
#include <string.h>

#include "counters.h"
#include "errors.h"
#include "handle.h"
#include "pacing.h"
#include "profile.h"
#include "settings.h"

atomic_bool emu_engine_ready;
atomic_int emu_engine_kind;

static axclError no_memory(const char *text)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NO_MEMORY), "%s", text);
}

emu_loaded *emu_loaded_get(uint64_t id)
{
    emu_loaded *loaded = emu_handle_get(EMU_MODEL, id);
    if (!loaded) emu_refuse(-1, "no model has the number %#llx, or it was unloaded", (unsigned long long)id);
    return loaded;
}

void emu_loaded_release(emu_loaded *loaded)
{
    if (atomic_fetch_sub(&loaded->references, 1) > 1) return;
    emu_model_close(loaded->model);
    free(loaded);
}

bool emu_in_flight(int pending, int64_t busy_until) { return pending || (emu_paced && busy_until > emu_now()); }

/* Rules that the card punishes late and obscurely, checked early; or, on request, punished as the card does. The caller
 * holds emu_lifecycle. */
static axclError check_order(emu_device *device, const emu_model_info *info, const char *name)
{
    axclError busy = AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_BUSY);
    bool late = info->kind != EMU_LAYER && device->layer_loaded;
    const char *what = info->kind == EMU_HEAD ? "head" : "encoder";
    if (late && emu_config.head_first == EMU_ORDER_OFFLINE) {
        device->state = EMU_OFFLINE;
        return emu_refuse(AXCL_ERR_DEVICE_NOT_CONNECTED,
            "device %d dropped off the bus: the %s %s was loaded after a layer", device->id, what, name);
    }
    if (!emu_config.strict) return 0;
    if (device->executed && !emu_config.late_load)
        return emu_refuse(busy,
            "%s is loaded after the first execute: load all models first (or unload all and begin again)", name);
    if (late && emu_config.head_first == EMU_ORDER_REFUSED)
        return emu_refuse(busy, "the %s %s is loaded after a layer: %ss come first, and axclrtEngineGetUsage loads,"
            " too (setting HEAD_FIRST=0 allows it)", what, name, what);
    return 0;
}

static void keep_name(emu_loaded *loaded, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = strlen(slash ? slash + 1 : path);
    if (n >= sizeof loaded->name) n = sizeof loaded->name - 1;
    memcpy(loaded->name, slash ? slash + 1 : path, n);
}

/* The caller holds emu_lifecycle. */
static axclError install(emu_device *device, emu_model *model, const char *path, uint64_t image, uint64_t *id)
{
    emu_loaded *loaded = calloc(1, sizeof *loaded);
    if (!loaded) {
        emu_model_close(model);
        return no_memory("the host is out of memory");
    }
    loaded->device = device, loaded->model = model, loaded->info = emu_model_get_info(model);
    loaded->references = 1;
    loaded->open = true;
    loaded->affinity = 7;
    keep_name(loaded, path);
    axclError error = check_order(device, loaded->info, loaded->name);
    if (!error) error = emu_memory_charge(device, loaded->info->cmm_bytes, image, loaded->name);
    if (!error && !(loaded->id = emu_handle_new(EMU_MODEL, loaded))) {
        emu_memory_refund(device, loaded->info->cmm_bytes);
        error = no_memory("too many models");
    }
    if (error) {
        emu_loaded_release(loaded);
        return error;
    }
    atomic_fetch_add(&device->models, 1);
    if (loaded->info->kind == EMU_LAYER) device->layer_loaded = true;
    *id = loaded->id;
    return 0;
}

static void close_context(uint64_t handle, void *object, void *arg)
{
    if (object == arg) emu_handle_close(handle);
}

void emu_loaded_uninstall(emu_loaded *loaded)
{
    emu_device *device = loaded->device;
    loaded->open = false;
    emu_handle_close(loaded->id);
    emu_handle_each(EMU_ENGINE_CONTEXT, close_context, loaded);
    emu_memory_refund(device, loaded->info->cmm_bytes);
    if (atomic_fetch_sub(&device->models, 1) == 1) device->executed = device->layer_loaded = false; /* a fresh start */
    emu_loaded_release(loaded);
}

axclError emu_load(emu_device *device, emu_model *model, const char *path, uint64_t image, uint64_t *id)
{
    double cost = emu_config.load_time ? emu_cost_load(emu_model_get_info(model)->file_bytes) : 0;
    uint64_t made = 0;
    pthread_mutex_lock(&emu_lifecycle);
    uint32_t generation = device->generation;
    axclError error = install(device, model, path, image, &made);
    pthread_mutex_unlock(&emu_lifecycle);
    if (error) return error;
    emu_time_take(device, EMU_RESOURCE_UP, cost);
    if (device->generation != generation)
        return emu_refuse(AXCL_ERR_DEVICE_NOT_CONNECTED, "device %d was reset while it loaded %s", device->id, path);
    if (!(error = emu_offline_error(device))) *id = made;
    return error;
}

axclError emu_load_once(emu_device *device, emu_model *model, const char *path, uint64_t image)
{
    bool layer = emu_model_get_info(model)->kind == EMU_LAYER;
    uint64_t id = 0;
    axclError error = emu_load(device, model, path, image, &id);
    if (error) return error;
    pthread_mutex_lock(&emu_lifecycle);
    emu_loaded *loaded = emu_handle_get(EMU_MODEL, id);
    if (loaded) emu_loaded_uninstall(loaded);
    if (layer) device->layer_loaded = true; /* no fresh start: it was loaded */
    pthread_mutex_unlock(&emu_lifecycle);
    return 0;
}

typedef struct wipe {
    emu_device *device;
    bool report;
} wipe;

static void wipe_one(uint64_t id, void *object, void *arg)
{
    (void)id;
    wipe *w = arg;
    emu_loaded *loaded = object;
    if (loaded->device != w->device) return;
    if (w->report) emu_leak("model %s was not unloaded", loaded->name);
    emu_loaded_uninstall(loaded);
}

void emu_models_wipe(emu_device *device, bool report)
{
    wipe w = {device, report};
    emu_handle_each(EMU_MODEL, wipe_one, &w);
}
