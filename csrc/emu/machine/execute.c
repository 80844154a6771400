/* Running a plan: memory made ready, the model's arithmetic, what became of the outputs, and the time it took on the
 * card. */
#include "execute.h"

#include <string.h>

#include "../arithmetic/math.h"
#include "counters.h"
#include "errors.h"
#include "faults.h"
#include "io.h"
#include "pacing.h"
#include "plan.h"
#include "profile.h"

#define NAN_WORD 0x7FC0u /* bf16 NaN; two of them are an fp32 NaN */

void emu_execute_begun(emu_plan *plan)
{
    atomic_fetch_add(&plan->io->references, 1);
    atomic_fetch_add(&plan->io->pending, 1);
    atomic_fetch_add(&plan->loaded->pending, 1);
}

void emu_execute_ended(emu_plan *plan)
{
    emu_io *io = plan->io;
    atomic_fetch_sub(&plan->loaded->pending, 1);
    atomic_fetch_sub(&io->pending, 1);
    emu_plan_release(plan);
    emu_io_release(io);
}

static void fill_nan(uint8_t *data, uint64_t size)
{
    uint16_t word = NAN_WORD;
    for (uint64_t i = 0; i + 2 <= size; i += 2) memcpy(data + i, &word, 2);
}

/* The pointers to read from. Stand-ins hold what there is of their memory, then NaN: stale data made visible. */
static void prepare_inputs(emu_plan *plan, void **inputs)
{
    for (int i = 0; i < plan->num_in; i++) {
        emu_range *range = &plan->in[i];
        if (range->alloc) emu_memory_touch(range->alloc);
        inputs[i] = range->host;
        if (!plan->in_scratch[i]) continue;
        inputs[i] = plan->in_scratch[i];
        fill_nan(plan->in_scratch[i], plan->in_bytes[i]);
        if (range->alloc) memcpy(plan->in_scratch[i], range->host, range->available);
    }
}

static void prepare_outputs(emu_plan *plan, void **outputs)
{
    for (int i = 0; i < plan->num_out; i++) {
        emu_range *range = &plan->out[i];
        bool all = range->alloc && !plan->out_scratch[i] && !range->offset && plan->out_bytes[i] >= range->alloc->size;
        if (range->alloc && !all) emu_memory_touch(range->alloc);
        outputs[i] = plan->out_scratch[i] ? plan->out_scratch[i] : range->host;
    }
}

/* K and V rows are looked at, since a later step may read them from behind a mask; other outputs are taken to be
 * anything. */
static void finish_outputs(emu_plan *plan)
{
    bool layer = plan->loaded->info->kind == EMU_LAYER;
    for (int i = 0; i < plan->num_out; i++) {
        emu_range *range = &plan->out[i];
        size_t n = plan->out_bytes[i];
        if (plan->out_scratch[i]) {
            n = range->alloc ? plan->out_kept[i] : 0;
            if (n) memcpy(range->host, plan->out_scratch[i], n);
        }
        if (n) emu_memory_written(range, n, !layer || i == EMU_OUT_OUTPUT || emu_has_nonfinite(range->host, n));
    }
    if (!layer && plan->out[0].alloc) plan->last_writes = plan->out[0].alloc->writes;
}

static emu_exec_flags flags_for(const emu_plan *plan)
{
    emu_exec_flags flags = {0, 0};
    if (plan->loaded->info->kind == EMU_VISION) return flags;
    if (plan->loaded->info->kind == EMU_HEAD) {
        const emu_alloc *out = plan->out[0].alloc;
        flags.output_unchanged = out && plan->last_writes && plan->last_writes == out->writes;
        return flags;
    }
    for (int i = EMU_IN_K; i <= EMU_IN_V; i++)
        if (!plan->in[i].alloc || plan->in_scratch[i] || plan->in[i].alloc->nonfinite) flags.scan_nan = 1;
    return flags;
}

static axclError compute(emu_plan *plan, emu_device *device)
{
    void *inputs[EMU_MAX_TENSORS], *outputs[EMU_MAX_TENSORS];
    bool spoil = emu_fault_nan(device, plan->loaded->info->kind);
    pthread_mutex_lock(&device->npu);
    prepare_inputs(plan, inputs);
    prepare_outputs(plan, outputs);
    emu_exec_flags flags = flags_for(plan);
    int rows = emu_model_execute(plan->loaded->model, plan->group, inputs, outputs, &flags);
    for (int i = 0; i < plan->num_out && spoil; i++) fill_nan(outputs[i], plan->out_bytes[i]);
    finish_outputs(plan);
    if (spoil) plan->last_writes = 0;
    pthread_mutex_unlock(&device->npu);
    emu_fault_heat(device);
    if (rows >= 0) {
        const emu_model_info *info = plan->loaded->info;
        if (info->kind == EMU_LAYER) emu_count_add(EMU_COUNT_LAYER_ROWS, (uint64_t)rows);
        if (info->int8) emu_count_add(EMU_COUNT_INT8, 1);
        return 0;
    }
    return emu_refuse(AXCL_ERR_ENGINE_EXECUTE_FAIL, "%s, group %d: the emulator ran out of host memory",
        plan->loaded->name, plan->group);
}

axclError emu_execute_run(emu_plan *plan, emu_device *device, int64_t submitted, int64_t *ready)
{
    int64_t start = *ready > submitted ? *ready : submitted;
    axclError error = compute(plan, device);
    *ready = emu_time_run(device, EMU_RESOURCE_NPU, start, emu_cost_execute(plan->loaded->model, plan->group));
    plan->io->busy_until = *ready;
    plan->loaded->busy_until = *ready;
    return error;
}
