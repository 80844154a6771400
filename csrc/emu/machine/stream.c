/* Streams: the list of them, making and ending them. What one does is in stream_queue.c. */
#include "stream.h"

#include <stdlib.h>

#include "counters.h"
#include "errors.h"
#include "handle.h"
#include "pacing.h"
#include "settings.h"
#include "stream_queue.h"

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static emu_stream *streams;

static axclError stream_error(int id, const char *text)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_STREAM, id), "%s", text);
}

emu_device *emu_stream_device(const emu_stream *s) { return s->device; }

void emu_stream_release(emu_stream *s)
{
    if (atomic_fetch_sub(&s->references, 1) > 1) return;
    pthread_mutex_destroy(&s->submit);
    pthread_mutex_destroy(&s->retire);
    free(s);
}

emu_stream *emu_stream_retain(axclrtStream handle)
{
    pthread_mutex_lock(&list_lock);
    emu_stream *s = emu_handle_get(EMU_STREAM, emu_as_number(handle));
    if (s) atomic_fetch_add(&s->references, 1);
    pthread_mutex_unlock(&list_lock);
    if (!s) stream_error(AXCL_ID_ILLEGAL_PARAM, "no stream of ours, or one already destroyed or reset with its device");
    return s;
}

/* ---- using ------------------------------------------------------------------------------------------------------- */

axclError emu_stream_submit(axclrtStream handle, emu_device *device, emu_op *op)
{
    emu_stream *s = emu_stream_retain(handle);
    axclError error = s ? emu_queue_check(s, device) : AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_ILLEGAL_PARAM);
    int async = emu_config.async;
    if (!error && async == EMU_ASYNC_REFUSED)
        error = stream_error(AXCL_ID_UNSUPPORTED, "asynchronous calls are switched off (setting ASYNC=0)");
    if (error) emu_op_drop(op);
    else if (async == EMU_ASYNC_SYNC) error = emu_op_now(op, device);
    else {
        emu_fault_submission(device);
        op->submitted = emu_time_submit();
        error = emu_queue_push(s, device, op);
        if (error) emu_op_drop(op);
    }
    if (s) emu_stream_release(s);
    return error;
}

axclError emu_stream_synchronise(emu_stream *s, emu_fault fault, int64_t deadline)
{
    if (fault.kind == EMU_FAULT_NONE) return emu_queue_synchronise(s, deadline);
    if (fault.kind == EMU_FAULT_FAIL_LATER)
        return emu_refuse(fault.code, "the synchronise was told to fail by the fault list");
    if (!emu_hang(s->device, fault.ms, &s->stop, fault.kind == EMU_FAULT_HANG ? deadline : 0))
        return emu_refuse(AXCL_ERR_STREAM_SYNC_TIMEOUT,
            "the stream was not done in time: it hangs, as the fault list told it to");
    return emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_TIMEOUT),
        "the synchronise hung, as the fault list told it to");
}

bool emu_stream_uses(const uint8_t *host, size_t n)
{
    bool used = false;
    pthread_mutex_lock(&list_lock);
    for (emu_stream *s = streams; s && !used; s = s->next) used = emu_queue_uses(s, host, n);
    pthread_mutex_unlock(&list_lock);
    return used;
}

static void gather(emu_device *device, emu_stream **found, int *count)
{
    pthread_mutex_lock(&list_lock);
    for (emu_stream *s = streams; s && *count < 256; s = s->next) {
        if (s->device != device) continue;
        atomic_fetch_add(&s->references, 1);
        found[(*count)++] = s;
    }
    pthread_mutex_unlock(&list_lock);
}

axclError emu_streams_wait(emu_device *device, bool take)
{
    emu_stream *found[256];
    int count = 0;
    axclError error = 0, one = 0;
    gather(device, found, &count);
    for (int i = 0; i < count; i++) {
        if (take) one = emu_queue_synchronise(found[i], 0);
        else emu_queue_drain(found[i]);
        if (!error) error = one;
        emu_stream_release(found[i]);
    }
    return error;
}

/* ---- making and ending ------------------------------------------------------------------------------------------- */

/* Takes s off the list: no call can find it any more. false: another thread did. */
static bool unlist(emu_stream *s)
{
    bool found = false;
    pthread_mutex_lock(&list_lock);
    for (emu_stream **at = &streams; *at && !found; at = &(*at)->next)
        if ((found = *at == s)) {
            *at = s->next;
            emu_handle_close(s->handle);
            break;
        }
    pthread_mutex_unlock(&list_lock);
    return found;
}

static void close_stream(emu_stream *s)
{
    emu_queue_close(s);
    emu_stream_release(s);
}

axclError emu_stream_make(emu_device *device, uint64_t *handle)
{
    emu_stream *s = calloc(1, sizeof *s);
    if (!s) return stream_error(AXCL_ID_STREAM_CREATE, "the host is out of memory");
    s->device = device;
    s->references = 1;
    if (!emu_queue_open(s)) {
        free(s);
        return stream_error(AXCL_ID_STREAM_CREATE, "the host cannot start another thread");
    }
    pthread_mutex_lock(&list_lock);
    s->handle = emu_handle_new(EMU_STREAM, s);
    s->next = streams;
    streams = s;
    pthread_mutex_unlock(&list_lock);
    *handle = s->handle;
    if (s->handle) return 0;
    if (unlist(s)) close_stream(s);
    return stream_error(AXCL_ID_STREAM_CREATE, "too many streams");
}

void emu_stream_end(emu_stream *s, bool force)
{
    if (!force) emu_queue_drain(s);
    if (unlist(s)) close_stream(s);
}

static emu_stream *first_of(const emu_device *device)
{
    pthread_mutex_lock(&list_lock);
    emu_stream *s = streams;
    while (s && s->device != device) s = s->next;
    if (s) atomic_fetch_add(&s->references, 1);
    pthread_mutex_unlock(&list_lock);
    return s;
}

void emu_streams_wipe(emu_device *device, bool report)
{
    for (emu_stream *s; (s = first_of(device)); emu_stream_release(s)) {
        if (report) emu_leak("stream %#llx was not destroyed", (unsigned long long)s->handle);
        if (unlist(s)) close_stream(s);
    }
}
