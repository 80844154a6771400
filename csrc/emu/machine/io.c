/* IO objects: which device memory a model's inputs and outputs use; and the two execute calls. */
#include "emu.h"

#include <stdlib.h>
#include <string.h>

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;

static axclError io_error(int id, const char *text) { return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, id), "%s", text); }

void emu_io_release(emu_io *io)
{
    if (atomic_fetch_sub(&io->references, 1) > 1) return;
    for (int i = 0; i < EMU_MAX_GROUPS; i++)
        if (io->plans[i]) emu_plan_release(io->plans[i]);
    emu_loaded_release(io->loaded);
    pthread_mutex_destroy(&io->lock);
    free(io);
}

static emu_io *retain(axclrtEngineIO handle)
{
    pthread_mutex_lock(&list_lock);
    emu_io *io = emu_handle_get(EMU_IO, emu_as_number(handle));
    if (io) atomic_fetch_add(&io->references, 1);
    pthread_mutex_unlock(&list_lock);
    if (!io) io_error(AXCL_ID_ILLEGAL_PARAM, "no IO of ours, or one already destroyed");
    return io;
}

static bool in_flight(const emu_io *io) { return emu_in_flight(io->pending, io->busy_until); }

axclError axclrtEngineCreateIO(axclrtEngineIOInfo info, axclrtEngineIO *out)
{
    axclError error = emu_enter(EMU_FN_axclrtEngineCreateIO, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NULL_POINTER);
    emu_loaded *loaded = emu_handle_get(EMU_IO_INFO, emu_as_number(info));
    if (!loaded || !loaded->open) return io_error(AXCL_ID_ILLEGAL_PARAM, "no IO info of ours, or its model was unloaded");
    emu_io *io = calloc(1, sizeof *io);
    if (!io) return io_error(AXCL_ID_NO_MEMORY, "the host is out of memory");
    io->loaded = loaded;
    io->references = 1;
    atomic_fetch_add(&loaded->references, 1);
    pthread_mutex_init(&io->lock, NULL);
    if (!(io->handle = emu_handle_new(EMU_IO, io))) { /* last: from here on others may find it */
        emu_io_release(io);
        return io_error(AXCL_ID_NO_MEMORY, "too many IO objects");
    }
    *out = emu_as_pointer(io->handle);
    return 0;
}

static bool close_io(emu_io *io)
{
    pthread_mutex_lock(&list_lock);
    bool open = emu_handle_get(EMU_IO, io->handle) == io;
    if (open) emu_handle_close(io->handle);
    pthread_mutex_unlock(&list_lock);
    if (open) emu_io_release(io);
    return open;
}

axclError axclrtEngineDestroyIO(axclrtEngineIO handle)
{
    axclError error = emu_enter(EMU_FN_axclrtEngineDestroyIO, EMU_NEEDS_INIT, NULL);
    emu_io *io = error ? NULL : retain(handle);
    if (!io) return error ? error : AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    if (emu_config.strict && in_flight(io))
        error = io_error(AXCL_ID_BUSY, "an IO is destroyed while an execute uses it: synchronise the stream first");
    else close_io(io);
    emu_io_release(io);
    return error;
}

typedef struct wipe {
    emu_device *device;
    bool report;
} wipe;

static void wipe_io(uint64_t handle, void *object, void *arg)
{
    wipe *w = arg;
    emu_io *io = object;
    if (io->loaded->device != w->device) return;
    if (w->report) emu_leak("IO %#llx of %s was not destroyed", (unsigned long long)handle, io->loaded->name);
    close_io(io);
}

static void wipe_info(uint64_t handle, void *object, void *arg)
{
    wipe *w = arg;
    emu_loaded *loaded = object;
    if (loaded->device != w->device) return;
    if (w->report) emu_leak("IO info %#llx of %s was not destroyed", (unsigned long long)handle, loaded->name);
    emu_handle_close(handle);
    emu_loaded_release(loaded);
}

void emu_ios_wipe(emu_device *device, bool report)
{
    wipe w = {device, report};
    emu_handle_each(EMU_IO, wipe_io, &w);
    emu_handle_each(EMU_IO_INFO, wipe_info, &w);
}

/* ---- binding --------------------------------------------------------------------------------------------------------- */

static void mark_dirty(emu_io *io, unsigned bit)
{
    for (int i = 0; i < io->loaded->info->num_groups; i++)
        if (io->plans[i]) io->plans[i]->dirty |= 1u << bit;
}

static axclError bind_locked(emu_io *io, bool output, uint32_t index, const void *pointer, uint64_t size)
{
    uint32_t count = (uint32_t)(output ? io->loaded->info->num_outputs : io->loaded->info->num_inputs);
    emu_binding next = {emu_as_number(pointer), size}, *binding;
    if (index >= count)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ENGINE_INVALID_INDEX), "%s has no %s %u", io->loaded->name,
            output ? "output" : "input", index);
    if (!pointer || !size) return io_error(AXCL_ID_NULL_POINTER, "a binding needs memory and a size above 0");
    if (emu_config.strict && in_flight(io))
        return io_error(AXCL_ID_BUSY, "an IO is bound anew while an execute uses it: synchronise the stream first");
    binding = output ? &io->out[index] : &io->in[index];
    if (binding->address == next.address && binding->size == next.size) return 0;
    *binding = next;
    mark_dirty(io, (output ? EMU_MAX_TENSORS : 0) + index);
    return 0;
}

static axclError bind(emu_fn fn, axclrtEngineIO handle, bool output, uint32_t index, const void *pointer, uint64_t size)
{
    axclError error = emu_enter(fn, EMU_NEEDS_INIT, NULL);
    emu_io *io = error ? NULL : retain(handle);
    if (!io) return error ? error : AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    emu_count_add(EMU_COUNT_BINDS, 1);
    pthread_mutex_lock(&io->lock);
    error = bind_locked(io, output, index, pointer, size);
    pthread_mutex_unlock(&io->lock);
    emu_io_release(io);
    return error;
}

static axclError bound(emu_fn fn, axclrtEngineIO handle, bool output, uint32_t index, void **pointer, uint64_t *size)
{
    axclError error = emu_enter(fn, EMU_NEEDS_INIT, NULL);
    emu_io *io = error ? NULL : retain(handle);
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
    emu_io *io = emu_initialised && name ? retain(handle) : NULL;
    uint32_t found = UINT32_MAX;
    int count = !io ? 0 : output ? io->loaded->info->num_outputs : io->loaded->info->num_inputs;
    for (int i = 0; i < count; i++)
        if (!strcmp((output ? emu_model_output(io->loaded->model, i) : emu_model_input(io->loaded->model, i))->name, name))
            found = (uint32_t)i;
    if (io) emu_io_release(io);
    return found;
}

#define BINDINGS(Way, output)                                                                                           \
    axclError axclrtEngineSet##Way##BufferByIndex(axclrtEngineIO io, uint32_t index, const void *pointer, uint64_t size) \
    {                                                                                                                   \
        return bind(EMU_FN_axclrtEngineSet##Way##BufferByIndex, io, output, index, pointer, size);                       \
    }                                                                                                                   \
    axclError axclrtEngineSet##Way##BufferByName(axclrtEngineIO io, const char *name, const void *pointer, uint64_t size) \
    {                                                                                                                   \
        return bind(EMU_FN_axclrtEngineSet##Way##BufferByName, io, output, index_of(io, output, name), pointer, size);   \
    }                                                                                                                   \
    axclError axclrtEngineGet##Way##BufferByIndex(axclrtEngineIO io, uint32_t index, void **pointer, uint64_t *size)     \
    {                                                                                                                   \
        return bound(EMU_FN_axclrtEngineGet##Way##BufferByIndex, io, output, index, pointer, size);                      \
    }                                                                                                                   \
    axclError axclrtEngineGet##Way##BufferByName(axclrtEngineIO io, const char *name, void **pointer, uint64_t *size)    \
    {                                                                                                                   \
        return bound(EMU_FN_axclrtEngineGet##Way##BufferByName, io, output, index_of(io, output, name), pointer, size);  \
    }

BINDINGS(Input, false)
BINDINGS(Output, true)

/* ---- executing -------------------------------------------------------------------------------------------------------- */

static axclError check_call(const emu_device *device, emu_loaded *loaded, uint64_t context, uint32_t group, const emu_io *io)
{
    axclError illegal = AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    if (emu_handle_get(EMU_ENGINE_CONTEXT, context) != loaded)
        return emu_refuse(illegal, "%s: the engine context is not one of this model", loaded->name);
    if (group >= (uint32_t)loaded->info->num_groups)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ENGINE_INVALID_INDEX), "%s has no shape group %u", loaded->name, group);
    if (loaded->device != device && emu_config.strict)
        return emu_refuse(illegal, "%s is on device %d, the thread's context on device %d", loaded->name, loaded->device->id, device->id);
    if (io->loaded == loaded) return 0;
    const emu_model_info *made_for = io->loaded->info, *info = loaded->info;
    if (emu_config.strict || made_for->num_inputs != info->num_inputs || made_for->num_outputs != info->num_outputs)
        return emu_refuse(illegal, "%s is executed with an IO made for %s", loaded->name, io->loaded->name);
    return 0;
}

static axclError prepare(emu_op *op, emu_device *device, uint64_t model, uint64_t context, uint32_t group, emu_io *io)
{
    emu_loaded *loaded = emu_loaded_get(model);
    if (!loaded) return AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    axclError error = check_call(device, loaded, context, group, io);
    if (error) return error;
    pthread_mutex_lock(&io->lock);
    error = emu_plan_get(io, loaded, (int)group, &op->plan);
    if (!error) emu_plan_begun(op->plan);
    pthread_mutex_unlock(&io->lock);
    if (!error) device->executed = true;
    return error;
}

static void count_execute(const emu_loaded *loaded, uint32_t group)
{
    static const emu_count counts[] = {EMU_COUNT_DECODE, EMU_COUNT_CHUNK, EMU_COUNT_HEAD};
    emu_count_add(counts[emu_model_group(loaded->model, (int)group)->kind], 1);
}

static axclError execute(emu_fn fn, uint64_t model, uint64_t context, uint32_t group, axclrtEngineIO handle, const axclrtStream *stream)
{
    emu_device *device;
    axclError error = emu_enter(fn, EMU_NEEDS_CONTEXT, &device);
    emu_op op = {.kind = EMU_OP_EXECUTE, .fault = emu_fault_armed()};
    emu_io *io = error ? NULL : retain(handle);
    if (!io) return error ? error : AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    if (!(error = prepare(&op, device, model, context, group, io))) {
        emu_loaded *loaded = op.plan->loaded;
        atomic_fetch_add(&loaded->references, 1); /* the operation may end before it is counted */
        error = stream ? emu_stream_submit(*stream, device, &op) : emu_op_now(&op, device);
        if (!error || !stream) count_execute(loaded, group);
        emu_loaded_release(loaded);
    }
    emu_io_release(io);
    return error;
}

axclError axclrtEngineExecute(uint64_t model, uint64_t context, uint32_t group, axclrtEngineIO io)
{
    return execute(EMU_FN_axclrtEngineExecute, model, context, group, io, NULL);
}

axclError axclrtEngineExecuteAsync(uint64_t model, uint64_t context, uint32_t group, axclrtEngineIO io, axclrtStream stream)
{
    return execute(EMU_FN_axclrtEngineExecuteAsync, model, context, group, io, &stream);
}
