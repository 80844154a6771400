/* Copies, fills and comparisons, synchronous or queued; and running any queued operation. */
#include "../machine/emu.h"

#include <string.h>

static axclError copy_error(int id, const char *text) { return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, id), "%s", text); }

/* ---- doing the work ------------------------------------------------------------------------------------------------- */

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
        return emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_TIMEOUT), "queued work hung, as the fault list told it to");
    }
    axclError error = emu_offline_error(device);
    if (error) return error;
    if (op->kind == EMU_OP_EXECUTE) return emu_execute_run(op->plan, device, op->submitted, ready);
    if (op->kind == EMU_OP_RECORD || op->kind == EMU_OP_WAIT) return emu_event_run(op, device, ready, stop);
    return run_copy(op, device, ready);
}

void emu_op_drop(emu_op *op)
{
    if (op->plan) emu_plan_ended(op->plan);
    if (op->event) emu_event_release(op->event);
    op->plan = NULL, op->event = NULL;
}

axclError emu_op_now(emu_op *op, emu_device *device)
{
    int64_t ready = 0;
    emu_fault_submission(device);
    emu_count_add(EMU_COUNT_WAITS, 1);
    op->submitted = emu_time_submit();
    axclError error = emu_op_run(op, device, &ready, NULL);
    emu_op_drop(op);
    if (!error) emu_time_wait(device, ready, 0, NULL);
    return error;
}

/* ---- checking arguments ------------------------------------------------------------------------------------------------ */

/* The device side of a transfer; in tolerant mode *count is cut to what the allocation holds. */
static axclError device_side(const void *pointer, const char *what, emu_device *device, size_t *count, emu_range *range)
{
    axclError error = emu_memory_find(pointer, what, range);
    if (error) return error;
    if (range->alloc->device != device && emu_config.strict)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_ILLEGAL_PARAM), "%s belongs to device %d, the thread's context to device %d",
            what, range->alloc->device->id, device->id);
    if (*count <= range->available) return 0;
    if (emu_config.strict)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_ILLEGAL_PARAM),
            "%zu bytes at offset %zu of %s reach past its allocation of %zu", *count, range->offset, what, range->alloc->size);
    *count = range->available;
    return 0;
}

static axclError host_side(const void *pointer, const char *what, size_t *count, emu_range *range, bool *pinned)
{
    size_t available;
    *range = (emu_range){NULL, (uint8_t *)(uintptr_t)pointer, 0, 0};
    if (!pointer) return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_NULL_POINTER), "%s is NULL", what);
    if (emu_is_device_pointer(pointer))
        return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_ILLEGAL_PARAM),
            "%s, %p, is a device pointer where the kind of copy says host", what, pointer);
    *pinned = emu_pinned_find(pointer, &available);
    if (!*pinned || *count <= available) return 0;
    if (emu_config.strict)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_ILLEGAL_PARAM),
            "%zu bytes of %s reach past its pinned buffer, which has %zu left", *count, what, available);
    *count = available;
    return 0;
}

static axclError prepare_copy(emu_op *op, emu_device *device, void *dst, const void *src, axclrtMemcpyKind kind)
{
    axclError error;
    bool pinned = false;
    *op = (emu_op){.kind = EMU_OP_COPY, .copy_kind = kind, .count = op->count, .fault = emu_fault_armed()};
    if ((unsigned)kind > AXCL_COPY_DEVICE_TO_HOST_PHYS) return copy_error(AXCL_ID_ILLEGAL_PARAM, "the kind of copy must be from 0 to 5");
    if ((unsigned)kind > AXCL_COPY_DEVICE_TO_DEVICE)
        return copy_error(AXCL_ID_UNSUPPORTED, "copies by physical host address are not part of the emulated runtime");
    if (!op->count && emu_config.strict) return copy_error(AXCL_ID_ILLEGAL_PARAM, "a copy of no bytes");
    bool to_device = kind == AXCL_COPY_HOST_TO_DEVICE || kind == AXCL_COPY_DEVICE_TO_DEVICE;
    bool from_device = kind == AXCL_COPY_DEVICE_TO_HOST || kind == AXCL_COPY_DEVICE_TO_DEVICE;
    error = to_device ? device_side(dst, "the target", device, &op->count, &op->dst)
                      : host_side(dst, "the target", &op->count, &op->dst, &pinned);
    if (error) return error;
    error = from_device ? device_side(src, "the source", device, &op->count, &op->src)
                        : host_side(src, "the source", &op->count, &op->src, &op->pinned);
    op->pinned |= pinned;
    return error;
}

static axclError prepare_set(emu_op *op, emu_device *device, void *dst, uint8_t value)
{
    *op = (emu_op){.kind = EMU_OP_SET, .copy_kind = AXCL_COPY_DEVICE_TO_DEVICE, .count = op->count, .value = value};
    op->fault = emu_fault_armed();
    return device_side(dst, "the memory to set", device, &op->count, &op->dst);
}

static axclError prepare_compare(emu_op *op, emu_device *device, const void *a, const void *b)
{
    *op = (emu_op){.kind = EMU_OP_COMPARE, .copy_kind = AXCL_COPY_DEVICE_TO_DEVICE, .count = op->count, .fault = emu_fault_armed()};
    axclError error = device_side(a, "the first range", device, &op->count, &op->dst);
    return error ? error : device_side(b, "the second range", device, &op->count, &op->src);
}

/* ---- exported ------------------------------------------------------------------------------------------------------ */

axclError axclrtMemcpy(void *dst, const void *src, size_t count, axclrtMemcpyKind kind)
{
    emu_device *device;
    emu_op op = {.count = count};
    axclError error = emu_enter(EMU_FN_axclrtMemcpy, EMU_NEEDS_CONTEXT, &device);
    if (error || (error = prepare_copy(&op, device, dst, src, kind))) return error;
    emu_count_copy(kind, op.count);
    return emu_op_now(&op, device);
}

axclError axclrtMemset(void *dst, uint8_t value, size_t count)
{
    emu_device *device;
    emu_op op = {.count = count};
    axclError error = emu_enter(EMU_FN_axclrtMemset, EMU_NEEDS_CONTEXT, &device);
    if (error || (error = prepare_set(&op, device, dst, value))) return error;
    return emu_op_now(&op, device);
}

axclError axclrtMemcmp(const void *a, const void *b, size_t count)
{
    emu_device *device;
    emu_op op = {.count = count};
    axclError error = emu_enter(EMU_FN_axclrtMemcmp, EMU_NEEDS_CONTEXT, &device);
    if (error || (error = prepare_compare(&op, device, a, b))) return error;
    return emu_op_now(&op, device);
}

axclError axclrtMemcpyAsync(void *dst, const void *src, size_t count, axclrtMemcpyKind kind, axclrtStream stream)
{
    emu_device *device;
    emu_op op = {.count = count};
    axclError error = emu_enter(EMU_FN_axclrtMemcpyAsync, EMU_NEEDS_CONTEXT, &device);
    if (error || (error = prepare_copy(&op, device, dst, src, kind))) return error;
    if (!(error = emu_stream_submit(stream, device, &op))) emu_count_copy(kind, op.count);
    return error;
}

axclError axclrtMemsetAsync(void *dst, uint8_t value, size_t count, axclrtStream stream)
{
    emu_device *device;
    emu_op op = {.count = count};
    axclError error = emu_enter(EMU_FN_axclrtMemsetAsync, EMU_NEEDS_CONTEXT, &device);
    if (error || (error = prepare_set(&op, device, dst, value))) return error;
    return emu_stream_submit(stream, device, &op);
}

axclError axclrtMemcmpAsync(const void *a, const void *b, size_t count, axclrtStream stream)
{
    emu_device *device;
    emu_op op = {.count = count};
    axclError error = emu_enter(EMU_FN_axclrtMemcmpAsync, EMU_NEEDS_CONTEXT, &device);
    if (error || (error = prepare_compare(&op, device, a, b))) return error;
    return emu_stream_submit(stream, device, &op);
}
