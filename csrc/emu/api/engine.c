/* The exported functions on the engine: init, loading and unloading models, what they need, contexts, affinity. */
#include "../machine/errors.h"
#include "../machine/handle.h"
#include "../machine/loaded.h"
#include "../machine/settings.h"
#include "../machine/stream.h"
#include "enter.h"

#define IN_MEMORY "a model from memory"

static axclError engine_error(int id, const char *text)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, id), "%s", text);
}

axclError axclrtEngineInit(axclrtEngineVNpuKind kind)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtEngineInit, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if ((unsigned)kind > AXCL_VNPU_LITTLE_BIG)
        return engine_error(AXCL_ID_ILLEGAL_PARAM, "the kind of NPU must be from 0 to 3");
    if (emu_engine_ready && emu_engine_kind != (int)kind)
        return engine_error(AXCL_ID_BUSY,
            "the engine is initialised with another kind: axclrtEngineGetVNpuKind tells which");
    emu_engine_kind = (int)kind;
    emu_engine_ready = true;
    return 0;
}

axclError axclrtEngineGetVNpuKind(axclrtEngineVNpuKind *kind)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtEngineGetVNpuKind, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!kind) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    if (!emu_engine_ready) return engine_error(AXCL_ID_FAIL, "axclrtEngineInit was not called");
    *kind = (axclrtEngineVNpuKind)emu_engine_kind;
    return 0;
}

axclError axclrtEngineFinalize(void)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtEngineFinalize, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!emu_engine_ready) return engine_error(AXCL_ID_FAIL, "axclrtEngineInit was not called");
    for (int i = 0; i < emu_num_devices && emu_config.strict; i++)
        if (emu_devices[i].models)
            return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_BUSY),
                "%d models are still loaded: unload them before axclrtEngineFinalize", (int)emu_devices[i].models);
    emu_engine_ready = false;
    return 0;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

/* How every call that loads begins; out: where its result goes. */
static axclError enter(emu_fn fn, const void *model, const void *out, emu_device **device)
{
    axclError error = emu_enter(fn, EMU_NEEDS_CONTEXT, device);
    if (error) return error;
    if (!model || !out) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    return emu_engine_ready ? 0 : engine_error(AXCL_ID_FAIL, "axclrtEngineInit comes before loading a model");
}

static axclError open_file(const char *path, emu_model **model)
{
    char why[EMU_ERR];
    *model = emu_model_open_file(path, why);
    return *model ? 0 : engine_error(AXCL_ID_OPEN, why);
}

/* A model image in device memory. */
static axclError open_image(const void *pointer, uint64_t size, emu_model **model)
{
    char why[EMU_ERR];
    emu_range range;
    axclError error = emu_memory_find(pointer, "the model's memory", &range);
    if (error) return error;
    if (!size || size > range.available)
        return engine_error(AXCL_ID_ILLEGAL_PARAM, "the model's size reaches past its memory");
    emu_memory_touch(range.alloc);
    *model = emu_model_open_mem(range.host, size, why);
    return *model ? 0 : engine_error(AXCL_ID_OPEN, why);
}

static uint64_t file_bytes(const emu_model *model) { return emu_model_get_info(model)->file_bytes; }

axclError axclrtEngineLoadFromFile(const char *path, uint64_t *id)
{
    emu_device *device;
    emu_model *model;
    axclError error = enter(EMU_FN_axclrtEngineLoadFromFile, path, id, &device);
    if (error || (error = open_file(path, &model))) return error;
    return emu_load(device, model, path, file_bytes(model), id);
}

axclError axclrtEngineLoadFromMem(const void *pointer, uint64_t size, uint64_t *id)
{
    emu_device *device;
    emu_model *model;
    axclError error = enter(EMU_FN_axclrtEngineLoadFromMem, pointer, id, &device);
    if (error || (error = open_image(pointer, size, &model))) return error;
    return emu_load(device, model, IN_MEMORY, 0, id);
}

/* What a model needs is found out by loading it. */
static axclError load_to_ask(emu_device *device, emu_model *model, const char *path, uint64_t image, int64_t *system,
    int64_t *cmm)
{
    uint64_t bytes = emu_model_get_info(model)->cmm_bytes;
    axclError error = emu_load_once(device, model, path, image);
    if (error) return error;
    *system = EMU_SYSTEM_BYTES;
    *cmm = (int64_t)bytes;
    return 0;
}

axclError axclrtEngineGetUsage(const char *path, int64_t *system_bytes, int64_t *cmm_bytes)
{
    emu_device *device;
    emu_model *model;
    axclError error = enter(EMU_FN_axclrtEngineGetUsage, path, cmm_bytes ? system_bytes : NULL, &device);
    if (error || (error = open_file(path, &model))) return error;
    return load_to_ask(device, model, path, file_bytes(model), system_bytes, cmm_bytes);
}

axclError axclrtEngineGetUsageFromMem(const void *pointer, uint64_t size, int64_t *system_bytes, int64_t *cmm_bytes)
{
    emu_device *device;
    emu_model *model;
    axclError error = enter(EMU_FN_axclrtEngineGetUsageFromMem, pointer, cmm_bytes ? system_bytes : NULL, &device);
    if (error || (error = open_image(pointer, size, &model))) return error;
    return load_to_ask(device, model, IN_MEMORY, 0, system_bytes, cmm_bytes);
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
        if (loaded->pending) emu_streams_wait(loaded->device, false);
        emu_loaded_uninstall(loaded);
    }
    pthread_mutex_unlock(&emu_lifecycle);
    return error;
}

/* ---- contexts and affinity --------------------------------------------------------------------------------------- */

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

static axclError affinity(emu_fn fn, uint64_t model, const uint64_t *context, const axclrtEngineSet *set,
    axclrtEngineSet *get)
{
    emu_device *device;
    axclError error = emu_enter(fn, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    emu_loaded *loaded = emu_loaded_get(model);
    if (!loaded) return unknown_model();
    if (context && emu_handle_get(EMU_ENGINE_CONTEXT, *context) != loaded)
        return engine_error(AXCL_ID_ILLEGAL_PARAM, "the engine context is not one of this model");
    if (!set && !get) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    if (set && (!*set || *set > 7))
        return engine_error(AXCL_ID_ILLEGAL_PARAM, "the affinity is a set of three NPU cores, 1 to 7");
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
