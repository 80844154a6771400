/* The exported functions on IO objects: making them, binding by index and by name, their batch. */
#include <string.h>

#include "../machine/counters.h"
#include "../machine/errors.h"
#include "../machine/handle.h"
#include "../machine/io.h"
#include "../machine/settings.h"
#include "enter.h"

static axclError io_error(int id, const char *text) { return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, id), "%s", text); }

axclError axclrtEngineCreateIO(axclrtEngineIOInfo info, axclrtEngineIO *out)
{
    uint64_t handle = 0;
    axclError error = emu_enter(EMU_FN_axclrtEngineCreateIO, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    emu_loaded *loaded = emu_handle_get(EMU_IO_INFO, emu_as_number(info));
    if (!loaded || !loaded->open)
        return io_error(AXCL_ID_ILLEGAL_PARAM, "no IO info of ours, or its model was unloaded");
    if (!(error = emu_io_make(loaded, &handle))) *out = emu_as_pointer(handle);
    return error;
}

axclError axclrtEngineDestroyIO(axclrtEngineIO handle)
{
    axclError error = emu_enter(EMU_FN_axclrtEngineDestroyIO, EMU_NEEDS_INIT, NULL);
    emu_io *io = error ? NULL : emu_io_retain(emu_as_number(handle));
    if (!io) return error ? error : AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    if (emu_config.strict && emu_io_in_flight(io))
        error = io_error(AXCL_ID_BUSY, "an IO is destroyed while an execute uses it: synchronise the stream first");
    else emu_io_close(io);
    emu_io_release(io);
    return error;
}

/* Kept; looked at when the IO is executed. */
axclError axclrtEngineSetDynamicBatchSize(axclrtEngineIO handle, uint32_t batch_size)
{
    axclError error = emu_enter(EMU_FN_axclrtEngineSetDynamicBatchSize, EMU_NEEDS_INIT, NULL);
    emu_io *io = error ? NULL : emu_io_retain(emu_as_number(handle));
    if (!io) return error ? error : AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    io->batch = batch_size;
    emu_io_release(io);
    return 0;
}

/* ---- binding ----------------------------------------------------------------------------------------------------- */

static axclError bind(emu_fn fn, axclrtEngineIO handle, bool output, uint32_t index, const void *pointer, uint64_t size)
{
    axclError error = emu_enter(fn, EMU_NEEDS_INIT, NULL);
    emu_io *io = error ? NULL : emu_io_retain(emu_as_number(handle));
    if (!io) return error ? error : AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    emu_count_add(EMU_COUNT_BINDS, 1);
    error = emu_io_bind(io, output, index, pointer, size);
    emu_io_release(io);
    return error;
}

static axclError bound(emu_fn fn, axclrtEngineIO handle, bool output, uint32_t index, void **pointer, uint64_t *size)
{
    axclError error = emu_enter(fn, EMU_NEEDS_INIT, NULL);
    emu_io *io = error ? NULL : emu_io_retain(emu_as_number(handle));
    if (!io) return error ? error : AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    uint32_t count = (uint32_t)(output ? io->loaded->info->num_outputs : io->loaded->info->num_inputs);
    pthread_mutex_lock(&io->lock);
    emu_binding b = index >= count ? (emu_binding){0, 0} : output ? io->out[index] : io->in[index];
    pthread_mutex_unlock(&io->lock);
    emu_io_release(io);
    if (!pointer || !size) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    if (!b.size) return io_error(AXCL_ID_ENGINE_INVALID_INDEX, "nothing is bound there");
    *pointer = emu_as_pointer(b.address);
    *size = b.size;
    return 0;
}

/* UINT32_MAX when there is no such name: no index that exists. */
static uint32_t index_of(axclrtEngineIO handle, bool output, const char *name)
{
    emu_io *io = emu_initialised && name ? emu_io_retain(emu_as_number(handle)) : NULL;
    uint32_t found = UINT32_MAX;
    int count = !io ? 0 : output ? io->loaded->info->num_outputs : io->loaded->info->num_inputs;
    for (int i = 0; i < count; i++)
        if (!strcmp((output ? emu_model_output(io->loaded->model, i) : emu_model_input(io->loaded->model, i))->name,
            name))
            found = (uint32_t)i;
    if (io) emu_io_release(io);
    return found;
}

#define BINDINGS(Way, output)                                                                                          \
    axclError axclrtEngineSet##Way##BufferByIndex(axclrtEngineIO io, uint32_t index, const void *pointer,              \
        uint64_t size)                                                                                                 \
    {                                                                                                                  \
        return bind(EMU_FN_axclrtEngineSet##Way##BufferByIndex, io, output, index, pointer, size);                     \
    }                                                                                                                  \
    axclError axclrtEngineSet##Way##BufferByName(axclrtEngineIO io, const char *name, const void *pointer,             \
        uint64_t size)                                                                                                 \
    {                                                                                                                  \
        uint32_t index = index_of(io, output, name);                                                                   \
        return bind(EMU_FN_axclrtEngineSet##Way##BufferByName, io, output, index, pointer, size);                      \
    }                                                                                                                  \
    axclError axclrtEngineGet##Way##BufferByIndex(axclrtEngineIO io, uint32_t index, void **pointer, uint64_t *size)   \
    {                                                                                                                  \
        return bound(EMU_FN_axclrtEngineGet##Way##BufferByIndex, io, output, index, pointer, size);                    \
    }                                                                                                                  \
    axclError axclrtEngineGet##Way##BufferByName(axclrtEngineIO io, const char *name, void **pointer, uint64_t *size)  \
    {                                                                                                                  \
        uint32_t index = index_of(io, output, name);                                                                   \
        return bound(EMU_FN_axclrtEngineGet##Way##BufferByName, io, output, index, pointer, size);                     \
    }

BINDINGS(Input, false)
BINDINGS(Output, true)
