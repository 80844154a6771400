/* Running operations: copies, fills and comparisons here, executes and events where they belong. */
#include "operation.h"

#include <string.h>

#include "../arithmetic/math.h"
#include "counters.h"
#include "errors.h"
#include "event.h"
#include "execute.h"
#include "pacing.h"
#include "profile.h"

/* Which words of the target may now be NaN or infinite: looked up only where the answer can change something. */
static void note_written(const emu_op *op, bool source_clean)
{
    const emu_range *dst = &op->dst;
    bool all = dst->offset == 0 && op->count >= dst->alloc->size;
    bool look = !source_clean && (all || !dst->alloc->nonfinite);
    emu_memory_written(dst, op->count, look && emu_has_nonfinite(dst->host, op->count));
}

static void copy_bytes(emu_op *op)
{
    emu_alloc *to = op->dst.alloc, *from = op->src.alloc;
    if (from) emu_memory_touch(from);
    if (to && (op->dst.offset || op->count < to->size)) emu_memory_touch(to);
    memmove(op->dst.host, op->src.host, op->count);
    if (to) note_written(op, from && !from->nonfinite);
}

static void set_bytes(emu_op *op)
{
    emu_alloc *to = op->dst.alloc;
    bool all = op->dst.offset == 0 && op->count >= to->size;
    if (!all) emu_memory_touch(to);
    uint16_t word = (uint16_t)(op->value << 8 | op->value);
    emu_memory_written(&op->dst, op->count, emu_has_nonfinite(&word, sizeof word));
    memset(op->dst.host, op->value, op->count);
}

static axclError run_copy(emu_op *op, emu_device *device, int64_t *ready)
{
    static const int resources[] = {EMU_RESOURCE_UP, EMU_RESOURCE_UP, EMU_RESOURCE_DOWN, EMU_RESOURCE_DMA};
    int64_t start = *ready > op->submitted ? *ready : op->submitted;
    double cost = emu_cost_copy(op->copy_kind, op->count, op->pinned);
    if (op->kind == EMU_OP_COPY) copy_bytes(op);
    else if (op->kind == EMU_OP_SET) set_bytes(op);
    *ready = emu_time_run(device, resources[op->copy_kind], start, cost);
    if (op->kind != EMU_OP_COMPARE) return 0;
    emu_memory_touch(op->dst.alloc);
    emu_memory_touch(op->src.alloc);
    return memcmp(op->dst.host, op->src.host, op->count) ? AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_FAIL) : 0;
}

axclError emu_op_run(emu_op *op, emu_device *device, int64_t *ready, const atomic_bool *stop)
{
    if (op->fault.kind == EMU_FAULT_FAIL_LATER)
        return emu_refuse(op->fault.code, "queued work was told to fail by the fault list");
    if (op->fault.kind != EMU_FAULT_NONE) {
        emu_hang(device, op->fault.ms, stop, 0);
        return emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_TIMEOUT),
            "queued work hung, as the fault list told it to");
    }
    axclError error = emu_offline_error(device);
    if (error) return error;
    if (op->kind == EMU_OP_EXECUTE) return emu_execute_run(op->plan, device, op->submitted, ready);
    if (op->kind == EMU_OP_RECORD || op->kind == EMU_OP_WAIT) return emu_event_run(op, device, ready, stop);
    return run_copy(op, device, ready);
}

void emu_op_drop(emu_op *op)
{
    if (op->plan) emu_execute_ended(op->plan);
    if (op->event) emu_event_release(op->event);
    op->plan = NULL, op->event = NULL;
}

axclError emu_op_now(emu_op *op, emu_device *device)
{
    int64_t ready = 0;
    emu_fault_submission(device);
    emu_count_add(EMU_COUNT_WAITS, 1);
    op->submitted = emu_time_submit();
    atomic_fetch_add(&device->working, 1);
    axclError error = emu_op_run(op, device, &ready, NULL);
    emu_op_drop(op);
    atomic_fetch_sub(&device->working, 1);
    if (!error) emu_time_wait(device, ready, 0, NULL);
    return error;
}
