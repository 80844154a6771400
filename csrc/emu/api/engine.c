/* The engine: init, loading and unloading models, what they need, affinity. */
#include "../machine/emu.h"

#include <stdlib.h>
#include <string.h>

static atomic_bool engine_ready;
static atomic_int engine_kind;

static axclError engine_error(int id, const char *text) { return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, id), "%s", text); }

void emu_engine_reset(void) { engine_ready = false; }

axclError axclrtEngineInit(axclrtEngineVNpuKind kind)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtEngineInit, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if ((unsigned)kind > AXCL_VNPU_LITTLE_BIG) return engine_error(AXCL_ID_ILLEGAL_PARAM, "the kind of NPU must be from 0 to 3");
    if (engine_ready && engine_kind != (int)kind)
        return engine_error(AXCL_ID_BUSY, "the engine is initialised with another kind: axclrtEngineGetVNpuKind tells which");
    engine_kind = (int)kind;
    engine_ready = true;
    return 0;
}

axclError axclrtEngineGetVNpuKind(axclrtEngineVNpuKind *kind)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtEngineGetVNpuKind, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!kind) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    if (!engine_ready) return engine_error(AXCL_ID_FAIL, "axclrtEngineInit was not called");
    *kind = (axclrtEngineVNpuKind)engine_kind;
    return 0;
}

axclError axclrtEngineFinalize(void)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtEngineFinalize, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!engine_ready) return engine_error(AXCL_ID_FAIL, "axclrtEngineInit was not called");
    for (int i = 0; i < emu_num_devices && emu_config.strict; i++)
        if (emu_devices[i].models)
            return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_BUSY),
                "%d models are still loaded: unload them before axclrtEngineFinalize", (int)emu_devices[i].models);
    engine_ready = false;
    return 0;
}

/* ---- loading -------------------------------------------------------------------------------------------------------- */

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

/* Rules that the card punishes late and obscurely, checked early; the caller holds emu_lifecycle. */
static axclError check_order(const emu_device *device, const emu_model_info *info, const char *name)
{
    axclError busy = AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_BUSY);
    if (!emu_config.strict) return 0;
    if (device->executed)
        return emu_refuse(busy, "%s is loaded after the first execute: load all models first (or unload all and begin again)", name);
    if (emu_config.head_first && info->kind == EMU_HEAD && device->layers)
        return emu_refuse(busy, "the head %s is loaded after a layer: heads come first (setting HEAD_FIRST=0 allows it)", name);
    return 0;
}

static void keep_name(emu_loaded *loaded, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = strlen(slash ? slash + 1 : path);
    if (n >= sizeof loaded->name) n = sizeof loaded->name - 1;
    memcpy(loaded->name, slash ? slash + 1 : path, n);
}

/* Takes the model over. */
static axclError install(emu_device *device, emu_model *model, const char *path, uint64_t *id)
{
    emu_loaded *loaded = calloc(1, sizeof *loaded);
    if (!loaded) {
        emu_model_close(model);
        return engine_error(AXCL_ID_NO_MEMORY, "the host is out of memory");
    }
    loaded->device = device, loaded->model = model, loaded->info = emu_model_get_info(model);
    loaded->references = 1;
    loaded->open = true;
    loaded->affinity = 7;
    keep_name(loaded, path);
    axclError error = check_order(device, loaded->info, loaded->name);
    if (!error) error = emu_memory_charge(device, loaded->info->cmm_bytes, loaded->name);
    if (!error && !(loaded->id = emu_handle_new(EMU_MODEL, loaded))) {
        emu_memory_refund(device, loaded->info->cmm_bytes);
        error = engine_error(AXCL_ID_NO_MEMORY, "too many models");
    }
    if (error) {
        emu_loaded_release(loaded);
        return error;
    }
    atomic_fetch_add(&device->models, 1);
    if (loaded->info->kind == EMU_LAYER) atomic_fetch_add(&device->layers, 1);
    *id = loaded->id;
    return 0;
}

static axclError load(emu_device *device, emu_model *model, const char *path, const char *why, uint64_t *id)
{
    if (!model) return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_OPEN), "%s", why);
    pthread_mutex_lock(&emu_lifecycle);
    axclError error = install(device, model, path, id);
    pthread_mutex_unlock(&emu_lifecycle);
    return error;
}

axclError axclrtEngineLoadFromFile(const char *path, uint64_t *id)
{
    char why[EMU_ERR];
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtEngineLoadFromFile, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!path || !id) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    if (!engine_ready) return engine_error(AXCL_ID_FAIL, "axclrtEngineInit comes before loading a model");
    return load(device, emu_model_open_file(path, why), path, why, id);
}

/* A model image in device memory: checked and made readable. */
static axclError find_image(const void *pointer, uint64_t size, emu_range *range)
{
    axclError error = emu_memory_find(pointer, "the model's memory", range);
    if (error) return error;
    if (!size || size > range->available) return engine_error(AXCL_ID_ILLEGAL_PARAM, "the model's size reaches past its memory");
    emu_memory_touch(range->alloc);
    return 0;
}

axclError axclrtEngineLoadFromMem(const void *pointer, uint64_t size, uint64_t *id)
{
    char why[EMU_ERR];
    emu_device *device;
    emu_range image;
    axclError error = emu_enter(EMU_FN_axclrtEngineLoadFromMem, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!id) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    if (!engine_ready) return engine_error(AXCL_ID_FAIL, "axclrtEngineInit comes before loading a model");
    if ((error = find_image(pointer, size, &image))) return error;
    return load(device, emu_model_open_mem(image.host, size, why), "a model from memory", why, id);
}

static void close_context(uint64_t handle, void *object, void *arg)
{
    if (object == arg) emu_handle_close(handle);
}

/* The caller holds emu_lifecycle. */
static void uninstall(emu_loaded *loaded)
{
    emu_device *device = loaded->device;
    loaded->open = false;
    emu_handle_close(loaded->id);
    emu_handle_each(EMU_ENGINE_CONTEXT, close_context, loaded);
    emu_memory_refund(device, loaded->info->cmm_bytes);
    if (loaded->info->kind == EMU_LAYER) atomic_fetch_sub(&device->layers, 1);
    if (atomic_fetch_sub(&device->models, 1) == 1) device->executed = false; /* a fresh start */
    emu_loaded_release(loaded);
}

axclError axclrtEngineUnload(uint64_t id)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtEngineUnload, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    pthread_mutex_lock(&emu_lifecycle);
    emu_loaded *loaded = emu_loaded_get(id);
    if (!loaded) error = AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    else if (emu_config.strict && emu_in_flight(loaded->pending, loaded->busy_until))
        error = emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_BUSY),
            "%s is unloaded while it executes: synchronise the stream first", loaded->name);
    else {
        if (loaded->pending) emu_streams_drain(loaded->device);
        uninstall(loaded);
    }
    pthread_mutex_unlock(&emu_lifecycle);
    return error;
}

/* ---- contexts and affinity ---------------------------------------------------------------------------------------------- */

static axclError unknown_model(void) { return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM); }

axclError axclrtEngineCreateContext(uint64_t model, uint64_t *context)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtEngineCreateContext, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!context) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    emu_loaded *loaded = emu_loaded_get(model);
    if (!loaded) return unknown_model();
    *context = emu_handle_new(EMU_ENGINE_CONTEXT, loaded); /* ends with the model */
    return *context ? 0 : engine_error(AXCL_ID_NO_MEMORY, "too many engine contexts");
}

static axclError affinity(emu_fn fn, uint64_t model, const uint64_t *context, const axclrtEngineSet *set, axclrtEngineSet *get)
{
    emu_device *device;
    axclError error = emu_enter(fn, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    emu_loaded *loaded = emu_loaded_get(model);
    if (!loaded) return unknown_model();
    if (context && emu_handle_get(EMU_ENGINE_CONTEXT, *context) != loaded)
        return engine_error(AXCL_ID_ILLEGAL_PARAM, "the engine context is not one of this model");
    if (!set && !get) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    if (set && (!*set || *set > 7)) return engine_error(AXCL_ID_ILLEGAL_PARAM, "the affinity is a set of three NPU cores, 1 to 7");
    if (set) loaded->affinity = *set; /* kept, without effect on time */
    else *get = loaded->affinity;
    return 0;
}

axclError axclrtEngineSetAffinity(uint64_t model, axclrtEngineSet set)
{
    return affinity(EMU_FN_axclrtEngineSetAffinity, model, NULL, &set, NULL);
}

axclError axclrtEngineGetAffinity(uint64_t model, axclrtEngineSet *set)
{
    return affinity(EMU_FN_axclrtEngineGetAffinity, model, NULL, NULL, set);
}

axclError axclrtEngineSetContextAffinity(uint64_t model, uint64_t context, axclrtEngineSet set)
{
    return affinity(EMU_FN_axclrtEngineSetContextAffinity, model, &context, &set, NULL);
}

axclError axclrtEngineGetContextAffinity(uint64_t model, uint64_t context, axclrtEngineSet *set)
{
    return affinity(EMU_FN_axclrtEngineGetContextAffinity, model, &context, NULL, set);
}

/* ---- cleaning up ------------------------------------------------------------------------------------------------------ */

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
    uninstall(loaded);
}

void emu_engine_wipe(emu_device *device, bool report)
{
    wipe w = {device, report};
    emu_ios_wipe(device, report);
    emu_handle_each(EMU_MODEL, wipe_one, &w);
}
