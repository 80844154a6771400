/* The two exported execute calls: checked, then run at once or queued. */
#include "../machine/counters.h"
#include "../machine/errors.h"
#include "../machine/execute.h"
#include "../machine/handle.h"
#include "../machine/operation.h"
#include "../machine/plan.h"
#include "../machine/settings.h"
#include "../machine/stream.h"
#include "enter.h"

static axclError check_call(const emu_device *device, emu_loaded *loaded, uint64_t context, uint32_t group,
    const emu_io *io)
{
    axclError illegal = AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM);
    if (emu_handle_get(EMU_ENGINE_CONTEXT, context) != loaded)
        return emu_refuse(illegal, "%s: the engine context is not one of this model", loaded->name);
    if (group >= (uint32_t)loaded->info->num_groups)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ENGINE_INVALID_INDEX), "%s has no shape group %u",
            loaded->name, group);
    if (loaded->device != device && emu_config.strict)
        return emu_refuse(illegal, "%s is on device %d, the thread's context on device %d", loaded->name,
            loaded->device->id, device->id);
    if (io->batch > 1 && emu_config.strict)
        return emu_refuse(illegal, "%s is executed with a batch of %u: it was compiled for one", loaded->name,
            (unsigned)io->batch);
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
    if (!error) emu_execute_begun(op->plan);
    pthread_mutex_unlock(&io->lock);
    if (!error) device->executed = true;
    return error;
}

static void count_execute(const emu_loaded *loaded, uint32_t group)
{
    static const emu_count counts[] = {EMU_COUNT_DECODE, EMU_COUNT_CHUNK, EMU_COUNT_HEAD, EMU_COUNT_VISION};
    emu_count_add(counts[emu_model_group(loaded->model, (int)group)->kind], 1);
}

static axclError execute(emu_fn fn, uint64_t model, uint64_t context, uint32_t group, axclrtEngineIO handle,
    const axclrtStream *stream)
{
    emu_device *device;
    axclError error = stream ? emu_enter_stream(fn, *stream, &device) : emu_enter(fn, EMU_NEEDS_CONTEXT, &device);
    emu_op op = {.kind = EMU_OP_EXECUTE, .fault = emu_fault_armed()};
    emu_io *io = error ? NULL : emu_io_retain(emu_as_number(handle));
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

axclError axclrtEngineExecuteAsync(uint64_t model, uint64_t context, uint32_t group, axclrtEngineIO io,
    axclrtStream stream)
{
    return execute(EMU_FN_axclrtEngineExecuteAsync, model, context, group, io, &stream);
}
