/* Events: a mark in one stream that another stream waits for. A wait is for the last record submitted before it. */
#include "emu.h"

#include <stdlib.h>

struct emu_event {
    uint64_t handle;
    atomic_int references;      /* the handle's and one per queued operation */
    _Atomic uint64_t submitted, done; /* records */
    _Atomic int64_t end;        /* modelled time of the last record */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t recorded = PTHREAD_COND_INITIALIZER;

static axclError event_error(int id, const char *text) { return emu_refuse(AXCL_ERROR(AXCL_SUB_STREAM, id), "%s", text); }

void emu_event_release(emu_event *event)
{
    if (atomic_fetch_sub(&event->references, 1) == 1) free(event);
}

static emu_event *retain(axclrtEvent handle)
{
    pthread_mutex_lock(&lock);
    emu_event *event = emu_handle_get(EMU_EVENT, emu_as_number(handle));
    if (event) atomic_fetch_add(&event->references, 1);
    pthread_mutex_unlock(&lock);
    return event;
}

/* ---- on the stream's thread --------------------------------------------------------------------------------------------- */

static axclError wait_for(emu_op *op, emu_device *device, const atomic_bool *stop)
{
    uint32_t generation = device->generation;
    int64_t deadline = op->timeout_ms < 0 ? INT64_MAX : emu_now() + (int64_t)op->timeout_ms * 1000000;
    axclError error = 0;
    pthread_mutex_lock(&lock);
    while (op->event->done < op->ticket && !error) {
        int64_t now = emu_now(), until = now + 20000000 < deadline ? now + 20000000 : deadline;
        if ((stop && *stop) || device->generation != generation || device->state != EMU_ONLINE)
            error = AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_EVENT_WAIT);
        else if (now >= deadline) error = AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_TIMEOUT);
        if (error) break;
        struct timespec t = {until / 1000000000, until % 1000000000};
        pthread_cond_clockwait(&recorded, &lock, CLOCK_MONOTONIC, &t);
    }
    pthread_mutex_unlock(&lock);
    return error ? emu_refuse(error, "a stream's wait for an event ended without it") : 0;
}

axclError emu_event_run(emu_op *op, emu_device *device, int64_t *ready, const atomic_bool *stop)
{
    emu_event *event = op->event;
    if (*ready < op->submitted) *ready = op->submitted;
    if (op->kind == EMU_OP_WAIT) {
        axclError error = wait_for(op, device, stop);
        if (!error && *ready < event->end) *ready = event->end;
        return error;
    }
    pthread_mutex_lock(&lock);
    event->end = *ready;
    if (event->done < op->ticket) event->done = op->ticket;
    pthread_cond_broadcast(&recorded);
    pthread_mutex_unlock(&lock);
    return 0;
}

/* ---- exported ------------------------------------------------------------------------------------------------------ */

axclError axclrtCreateEvent(axclrtEvent *out)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtCreateEvent, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_NULL_POINTER);
    emu_event *event = calloc(1, sizeof *event);
    if (event) {
        event->references = 1;
        event->handle = emu_handle_new(EMU_EVENT, event);
    }
    if (!event || !event->handle) {
        free(event);
        return event_error(AXCL_ID_EVENT_CREATE, "too many events");
    }
    *out = emu_as_pointer(event->handle);
    return 0;
}

axclError axclrtDestroyEvent(axclrtEvent handle)
{
    axclError error = emu_enter(EMU_FN_axclrtDestroyEvent, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    pthread_mutex_lock(&lock);
    emu_event *event = emu_handle_get(EMU_EVENT, emu_as_number(handle));
    if (event) emu_handle_close(event->handle);
    pthread_mutex_unlock(&lock);
    if (!event) return event_error(AXCL_ID_EVENT_DESTROY, "no event of ours, or one already destroyed");
    emu_event_release(event);
    return 0;
}

axclError axclrtRecordEvent(axclrtEvent handle, axclrtStream stream)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtRecordEvent, EMU_NEEDS_CONTEXT, &device);
    emu_event *event = error ? NULL : retain(handle);
    if (error) return error;
    if (!event) return event_error(AXCL_ID_EVENT_RECORD, "no event of ours, or one already destroyed");
    emu_op op = {.kind = EMU_OP_RECORD, .event = event, .ticket = atomic_fetch_add(&event->submitted, 1) + 1, .fault = emu_fault_armed()};
    return emu_stream_submit(stream, device, &op);
}

static axclError stream_wait(emu_fn fn, axclrtStream stream, axclrtEvent handle, int32_t timeout_ms)
{
    emu_device *device;
    axclError error = emu_enter(fn, EMU_NEEDS_CONTEXT, &device);
    emu_event *event = error ? NULL : retain(handle);
    if (error) return error;
    if (!event) return event_error(AXCL_ID_EVENT_WAIT, "no event of ours, or one already destroyed");
    emu_op op = {.kind = EMU_OP_WAIT, .event = event, .ticket = event->submitted, .timeout_ms = timeout_ms, .fault = emu_fault_armed()};
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

static void close_one(uint64_t handle, void *object, void *arg)
{
    if (*(bool *)arg) emu_leak("event %#llx was not destroyed", (unsigned long long)handle);
    emu_handle_close(handle);
    emu_event_release(object);
}

void emu_events_wipe(bool report) { emu_handle_each(EMU_EVENT, close_one, &report); }
