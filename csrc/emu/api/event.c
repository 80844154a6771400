/* The exported functions on events. */
#include "../machine/errors.h"
#include "../machine/event.h"
#include "../machine/handle.h"
#include "../machine/stream.h"
#include "enter.h"

static axclError event_error(int id, const char *text)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_STREAM, id), "%s", text);
}

axclError axclrtCreateEvent(axclrtEvent *out)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtCreateEvent, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_NULL_POINTER);
    uint64_t event = emu_event_make();
    if (!event) return event_error(AXCL_ID_EVENT_CREATE, "too many events");
    *out = emu_as_pointer(event);
    return 0;
}

axclError axclrtDestroyEvent(axclrtEvent handle)
{
    axclError error = emu_enter(EMU_FN_axclrtDestroyEvent, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    if (emu_event_close(emu_as_number(handle))) return 0;
    return event_error(AXCL_ID_EVENT_DESTROY, "no event of ours, or one already destroyed");
}

axclError axclrtRecordEvent(axclrtEvent handle, axclrtStream stream)
{
    emu_device *device;
    axclError error = emu_enter_stream(EMU_FN_axclrtRecordEvent, stream, &device);
    emu_event *event = error ? NULL : emu_event_retain(emu_as_number(handle));
    if (error) return error;
    if (!event) return event_error(AXCL_ID_EVENT_RECORD, "no event of ours, or one already destroyed");
    emu_op op = {.kind = EMU_OP_RECORD, .event = event, .ticket = atomic_fetch_add(&event->submitted, 1) + 1,
        .fault = emu_fault_armed()};
    return emu_stream_submit(stream, device, &op);
}

static axclError stream_wait(emu_fn fn, axclrtStream stream, axclrtEvent handle, int32_t timeout_ms)
{
    emu_device *device;
    axclError error = emu_enter_stream(fn, stream, &device);
    emu_event *event = error ? NULL : emu_event_retain(emu_as_number(handle));
    if (error) return error;
    if (!event) return event_error(AXCL_ID_EVENT_WAIT, "no event of ours, or one already destroyed");
    emu_op op = {.kind = EMU_OP_WAIT, .event = event, .ticket = event->submitted, .timeout_ms = timeout_ms,
        .fault = emu_fault_armed()};
    return emu_stream_submit(stream, device, &op);
}

axclError axclrtStreamWaitEvent(axclrtStream stream, axclrtEvent event)
{
    return stream_wait(EMU_FN_axclrtStreamWaitEvent, stream, event, -1);
}

axclError axclrtStreamWaitEventWithTimeout(axclrtStream stream, axclrtEvent event, int32_t timeout_ms)
{
    return stream_wait(EMU_FN_axclrtStreamWaitEventWithTimeout, stream, event, timeout_ms);
}
