/* What can be asked about models: kind, compiler, memory of a loaded one, and IO info objects with their tensors. */
#include <string.h>

#include "../machine/errors.h"
#include "../machine/handle.h"
#include "../machine/loaded.h"
#include "enter.h"

static axclError query_error(int id, const char *text)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, id), "%s", text);
}

/* ---- kind and usage: from a file, from device memory, of a loaded model ------------------------------------------ */

static axclError peek_file(emu_fn fn, const char *path, emu_model_info *info)
{
    char why[EMU_ERR];
    emu_device *device;
    axclError error = emu_enter(fn, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!path) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    return emu_model_peek(path, info, why) ? query_error(AXCL_ID_OPEN, why) : 0;
}

static axclError peek_memory(emu_fn fn, const void *pointer, uint64_t size, emu_model_info *info)
{
    char why[EMU_ERR];
    emu_device *device;
    emu_range range;
    axclError error = emu_enter(fn, EMU_NEEDS_CONTEXT, &device);
    if (error || (error = emu_memory_find(pointer, "the model's memory", &range))) return error;
    if (!size || size > range.available)
        return query_error(AXCL_ID_ILLEGAL_PARAM, "the model's size reaches past its memory");
    emu_memory_touch(range.alloc);
    emu_model *model = emu_model_open_mem(range.host, size, why);
    if (!model) return query_error(AXCL_ID_OPEN, why);
    *info = *emu_model_get_info(model);
    emu_model_close(model);
    return 0;
}

static axclError peek_loaded(emu_fn fn, uint64_t id, emu_model_info *info)
{
    emu_device *device;
    axclError error = emu_enter(fn, EMU_NEEDS_CONTEXT, &device);
    emu_loaded *loaded = error ? NULL : emu_loaded_get(id);
    if (loaded) *info = *loaded->info;
    else if (!error) error = AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    return error;
}

static axclError give_kind(axclError error, axclrtEngineModelKind *kind)
{
    if (error) return error;
    if (!kind) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    *kind = AXCL_MODEL_3_CORES; /* the whole NPU, as language models are compiled */
    return 0;
}

axclError axclrtEngineGetUsageFromModelId(uint64_t id, int64_t *system_bytes, int64_t *cmm_bytes)
{
    emu_model_info info;
    axclError error = peek_loaded(EMU_FN_axclrtEngineGetUsageFromModelId, id, &info);
    if (error) return error;
    if (!system_bytes || !cmm_bytes) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    *system_bytes = EMU_SYSTEM_BYTES;
    *cmm_bytes = (int64_t)info.cmm_bytes;
    return 0;
}

axclError axclrtEngineGetModelType(const char *path, axclrtEngineModelKind *kind)
{
    emu_model_info info;
    return give_kind(peek_file(EMU_FN_axclrtEngineGetModelType, path, &info), kind);
}

axclError axclrtEngineGetModelTypeFromMem(const void *pointer, uint64_t size, axclrtEngineModelKind *kind)
{
    emu_model_info info;
    return give_kind(peek_memory(EMU_FN_axclrtEngineGetModelTypeFromMem, pointer, size, &info), kind);
}

axclError axclrtEngineGetModelTypeFromModelId(uint64_t id, axclrtEngineModelKind *kind)
{
    emu_model_info info;
    return give_kind(peek_loaded(EMU_FN_axclrtEngineGetModelTypeFromModelId, id, &info), kind);
}

const char *axclrtEngineGetModelCompilerVersion(uint64_t id)
{
    emu_device *device;
    if (emu_enter(EMU_FN_axclrtEngineGetModelCompilerVersion, EMU_NEEDS_CONTEXT, &device)) return NULL;
    emu_loaded *loaded = emu_loaded_get(id);
    return loaded ? loaded->info->compiler : NULL;
}

/* ---- IO info: an object on the host, so no context is needed to read it ------------------------------------------ */

static axclError unknown_info(void)
{
    return query_error(AXCL_ID_ILLEGAL_PARAM, "no IO info of ours, one already destroyed, or its model was unloaded");
}

static emu_loaded *info_get(emu_fn fn, axclrtEngineIOInfo info)
{
    if (emu_enter(fn, EMU_NEEDS_INIT, NULL)) return NULL;
    emu_loaded *loaded = emu_handle_get(EMU_IO_INFO, emu_as_number(info));
    if (loaded && loaded->open) return loaded;
    unknown_info();
    return NULL;
}

axclError axclrtEngineGetIOInfo(uint64_t id, axclrtEngineIOInfo *info)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtEngineGetIOInfo, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!info) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    emu_loaded *loaded = emu_loaded_get(id);
    if (!loaded) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    uint64_t handle = emu_handle_new(EMU_IO_INFO, loaded);
    if (!handle) return query_error(AXCL_ID_NO_MEMORY, "too many IO infos");
    atomic_fetch_add(&loaded->references, 1);
    *info = emu_as_pointer(handle);
    return 0;
}

axclError axclrtEngineDestroyIOInfo(axclrtEngineIOInfo info)
{
    axclError error = emu_enter(EMU_FN_axclrtEngineDestroyIOInfo, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    emu_loaded *loaded = emu_handle_get(EMU_IO_INFO, emu_as_number(info));
    if (!loaded || !emu_handle_close(emu_as_number(info))) return unknown_info();
    emu_loaded_release(loaded);
    return 0;
}

axclError axclrtEngineGetShapeGroupsCount(axclrtEngineIOInfo info, int32_t *count)
{
    emu_loaded *loaded = info_get(EMU_FN_axclrtEngineGetShapeGroupsCount, info);
    if (!loaded) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    if (!count) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    *count = loaded->info->num_groups;
    return 0;
}

uint32_t axclrtEngineGetNumInputs(axclrtEngineIOInfo info)
{
    emu_loaded *loaded = info_get(EMU_FN_axclrtEngineGetNumInputs, info);
    return loaded ? (uint32_t)loaded->info->num_inputs : 0;
}

uint32_t axclrtEngineGetNumOutputs(axclrtEngineIOInfo info)
{
    emu_loaded *loaded = info_get(EMU_FN_axclrtEngineGetNumOutputs, info);
    return loaded ? (uint32_t)loaded->info->num_outputs : 0;
}

/* A tensor of the model, NULL with a sentence when there is none. */
static const emu_tensor *tensor_of(const emu_loaded *loaded, bool output, uint32_t index, uint32_t group)
{
    if (!loaded) return NULL;
    uint32_t count = (uint32_t)(output ? loaded->info->num_outputs : loaded->info->num_inputs);
    if (index < count && group < (uint32_t)loaded->info->num_groups)
        return output ? emu_model_output(loaded->model, (int)index) : emu_model_input(loaded->model, (int)index);
    emu_refuse(-1, "%s has no %s %u in group %u", loaded->name, output ? "output" : "input", index, group);
    return NULL;
}

static axclError missing(const emu_loaded *loaded)
{
    return AXCL_ERROR(AXCL_SUB_ENGINE, loaded ? AXCL_ID_ENGINE_INVALID_INDEX : AXCL_ID_ILLEGAL_PARAM);
}

static axclError give_dims(emu_loaded *loaded, bool output, uint32_t group, uint32_t index, axclrtEngineIODims *dims)
{
    const emu_tensor *t = tensor_of(loaded, output, index, group);
    if (!t) return missing(loaded);
    if (!dims) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    memset(dims, 0, sizeof *dims);
    dims->dimCount = t->shape[group].ndims;
    for (int i = 0; i < dims->dimCount; i++) dims->dims[i] = t->shape[group].dims[i];
    return 0;
}

static axclError give_type(emu_loaded *loaded, bool output, uint32_t index, axclrtEngineDataType *type)
{
    const emu_tensor *t = tensor_of(loaded, output, index, 0);
    if (!t) return missing(loaded);
    if (!type) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    *type = (axclrtEngineDataType)t->type;
    return 0;
}

static axclError give_layout(emu_loaded *loaded, bool output, uint32_t index, axclrtEngineDataLayout *layout)
{
    if (!tensor_of(loaded, output, index, 0)) return missing(loaded);
    if (!layout) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    *layout = AXCL_LAYOUT_NONE;
    return 0;
}

static int32_t find_name(const emu_loaded *loaded, bool output, const char *name)
{
    int count = !loaded || !name ? 0 : output ? loaded->info->num_outputs : loaded->info->num_inputs;
    for (int i = 0; i < count; i++)
        if (!strcmp((output ? emu_model_output(loaded->model, i) : emu_model_input(loaded->model, i))->name, name))
            return i;
    return -1;
}

#define QUERIES(Way, output)                                                                                           \
    uint64_t axclrtEngineGet##Way##SizeByIndex(axclrtEngineIOInfo info, uint32_t group, uint32_t index)                \
    {                                                                                                                  \
        const emu_loaded *loaded = info_get(EMU_FN_axclrtEngineGet##Way##SizeByIndex, info);                           \
        const emu_tensor *t = tensor_of(loaded, output, index, group);                                                 \
        return t ? t->shape[group].bytes : 0;                                                                          \
    }                                                                                                                  \
    const char *axclrtEngineGet##Way##NameByIndex(axclrtEngineIOInfo info, uint32_t index)                             \
    {                                                                                                                  \
        const emu_loaded *loaded = info_get(EMU_FN_axclrtEngineGet##Way##NameByIndex, info);                           \
        const emu_tensor *t = tensor_of(loaded, output, index, 0);                                                     \
        return t ? t->name : NULL;                                                                                     \
    }                                                                                                                  \
    int32_t axclrtEngineGet##Way##IndexByName(axclrtEngineIOInfo info, const char *name)                               \
    {                                                                                                                  \
        return find_name(info_get(EMU_FN_axclrtEngineGet##Way##IndexByName, info), output, name);                      \
    }                                                                                                                  \
    axclError axclrtEngineGet##Way##Dims(axclrtEngineIOInfo info, uint32_t group, uint32_t index,                      \
        axclrtEngineIODims *dims)                                                                                      \
    {                                                                                                                  \
        return give_dims(info_get(EMU_FN_axclrtEngineGet##Way##Dims, info), output, group, index, dims);               \
    }                                                                                                                  \
    axclError axclrtEngineGet##Way##DataType(axclrtEngineIOInfo info, uint32_t index, axclrtEngineDataType *type)      \
    {                                                                                                                  \
        return give_type(info_get(EMU_FN_axclrtEngineGet##Way##DataType, info), output, index, type);                  \
    }                                                                                                                  \
    axclError axclrtEngineGet##Way##DataLayout(axclrtEngineIOInfo info, uint32_t index,                                \
        axclrtEngineDataLayout *layout)                                                                                \
    {                                                                                                                  \
        return give_layout(info_get(EMU_FN_axclrtEngineGet##Way##DataLayout, info), output, index, layout);            \
    }

QUERIES(Input, false)
QUERIES(Output, true)
