/* The exported copies, fills and comparisons: checked, then run at once or queued. */
#include "../machine/counters.h"
#include "../machine/errors.h"
#include "../machine/operation.h"
#include "../machine/pinned.h"
#include "../machine/settings.h"
#include "../machine/stream.h"
#include "enter.h"

static axclError copy_error(int id, const char *text)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, id), "%s", text);
}

/* ---- checking arguments ------------------------------------------------------------------------------------------ */

/* The device side of a transfer; in tolerant mode *count is cut to what the allocation holds. */
static axclError device_side(const void *pointer, const char *what, emu_device *device, size_t *count, emu_range *range)
{
    axclError error = emu_memory_find(pointer, what, range);
    if (error) return error;
    if (range->alloc->device != device && emu_config.strict)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_ILLEGAL_PARAM),
            "%s belongs to device %d, the thread's context to device %d", what, range->alloc->device->id, device->id);
    if (*count <= range->available) return 0;
    if (emu_config.strict)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_ILLEGAL_PARAM),
            "%zu bytes at offset %zu of %s reach past its allocation of %zu", *count, range->offset, what,
            range->alloc->size);
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
    if ((unsigned)kind > AXCL_COPY_DEVICE_TO_HOST_PHYS)
        return copy_error(AXCL_ID_ILLEGAL_PARAM, "the kind of copy must be from 0 to 5");
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
    op->pinned = (op->pinned || pinned) && emu_config.pinned;
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
    *op = (emu_op){.kind = EMU_OP_COMPARE, .copy_kind = AXCL_COPY_DEVICE_TO_DEVICE, .count = op->count,
        .fault = emu_fault_armed()};
    axclError error = device_side(a, "the first range", device, &op->count, &op->dst);
    return error ? error : device_side(b, "the second range", device, &op->count, &op->src);
}

/* ---- exported ---------------------------------------------------------------------------------------------------- */

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
    axclError error = emu_enter_stream(EMU_FN_axclrtMemcpyAsync, stream, &device);
    if (!error && emu_config.ax8860 && kind == AXCL_COPY_DEVICE_TO_DEVICE)
        error = copy_error(AXCL_ID_UNSUPPORTED, "the runtime of AX8860 copies on the device synchronously only");
    if (error || (error = prepare_copy(&op, device, dst, src, kind))) return error;
    if (!(error = emu_stream_submit(stream, device, &op))) emu_count_copy(kind, op.count);
    return error;
}

axclError axclrtMemsetAsync(void *dst, uint8_t value, size_t count, axclrtStream stream)
{
    emu_device *device;
    emu_op op = {.count = count};
    axclError error = emu_enter_stream(EMU_FN_axclrtMemsetAsync, stream, &device);
    if (error || (error = prepare_set(&op, device, dst, value))) return error;
    return emu_stream_submit(stream, device, &op);
}

axclError axclrtMemcmpAsync(const void *a, const void *b, size_t count, axclrtStream stream)
{
    emu_device *device;
    emu_op op = {.count = count};
    axclError error = emu_enter_stream(EMU_FN_axclrtMemcmpAsync, stream, &device);
    if (error || (error = prepare_compare(&op, device, a, b))) return error;
    return emu_stream_submit(stream, device, &op);
}
