/* Events: a mark in one stream that another stream waits for. A wait is for the last record submitted before it. */
#define _GNU_SOURCE /* pthread_cond_clockwait */
#include "event.h"

#include <stdlib.h>

#include "counters.h"
#include "errors.h"
#include "handle.h"
#include "pacing.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t recorded = PTHREAD_COND_INITIALIZER;

void emu_event_release(emu_event *event)
{
    if (atomic_fetch_sub(&event->references, 1) == 1) free(event);
}

emu_event *emu_event_retain(uint64_t handle)
{
    pthread_mutex_lock(&lock);
    emu_event *event = emu_handle_get(EMU_EVENT, handle);
    if (event) atomic_fetch_add(&event->references, 1);
    pthread_mutex_unlock(&lock);
    return event;
}

/* ---- on the stream's thread -------------------------------------------------------------------------------------- */

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

/* ---- making and closing ------------------------------------------------------------------------------------------ */

uint64_t emu_event_make(void)
{
    emu_event *event = calloc(1, sizeof *event);
    if (!event) return 0;
    event->references = 1;
    uint64_t handle = event->handle = emu_handle_new(EMU_EVENT, event);
    if (!handle) free(event);
    return handle;
}

bool emu_event_close(uint64_t handle)
{
    pthread_mutex_lock(&lock);
    emu_event *event = emu_handle_get(EMU_EVENT, handle);
    if (event) emu_handle_close(handle);
    pthread_mutex_unlock(&lock);
    if (event) emu_event_release(event);
    return event != NULL;
}

static void close_one(uint64_t handle, void *object, void *arg)
{
    if (*(bool *)arg) emu_leak("event %#llx was not destroyed", (unsigned long long)handle);
    emu_handle_close(handle);
    emu_event_release(object);
}

void emu_events_wipe(bool report) { emu_handle_each(EMU_EVENT, close_one, &report); }
