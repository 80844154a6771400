/* Streams: a thread each, a ring of submitted work, in order. The ring is filled under the submit lock and emptied by whoever has the turn:
 * the stream's thread, or a thread that waits for the stream and comes before it (it saves the hand-off between two threads, and
 * what was computed is in the waiting thread's cache). No system call is made for a submission while the stream's thread is awake.
 */
#include "emu.h"

#include <signal.h>
#include <stdlib.h>

#include "futex.h"

#define RING 512u
#define GIVE_WAY_NS 100000 /* how long the thread leaves new work to the thread that waited for the last and did it */
#define HELP_NS 250000000ll /* a waiting thread with less time than this leaves the work to the stream's thread: it keeps its deadline */

struct emu_stream {
    uint64_t handle;
    emu_device *device;
    emu_stream *next;                 /* of all streams */
    atomic_int references;            /* the list's and one per call in progress */
    pthread_t thread;
    pthread_mutex_t submit, retire;
    _Atomic uint32_t tail, head;      /* operations accepted, ended */
    _Atomic uint32_t asleep;          /* is the thread? who sets it back wakes it */
    int waiters;                      /* threads that wait for head; under the retire lock, as is */
    uint32_t wanted;                  /* no waiter has to be woken before head is here */
    atomic_bool turn;                 /* somebody runs what is queued; ready is theirs */
    atomic_bool helped;               /* the last work was done by a thread that waited for it */
    int64_t ready;                    /* modelled end of the last operation */
    _Atomic int32_t worker_spin, waiter_spin;
    atomic_bool stop;                 /* drop what is queued and end */
    _Atomic axclError error;          /* first one since the last synchronise */
    _Atomic int64_t end;              /* ready, for those who wait */
    emu_op ring[RING];
};

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static emu_stream *streams;

static axclError stream_error(int id, const char *text) { return emu_refuse(AXCL_ERROR(AXCL_SUB_STREAM, id), "%s", text); }

emu_device *emu_stream_device(const emu_stream *s) { return s->device; }

static void release(emu_stream *s)
{
    if (atomic_fetch_sub(&s->references, 1) > 1) return;
    pthread_mutex_destroy(&s->submit);
    pthread_mutex_destroy(&s->retire);
    free(s);
}

static emu_stream *retain(axclrtStream handle)
{
    pthread_mutex_lock(&list_lock);
    emu_stream *s = emu_handle_get(EMU_STREAM, emu_as_number(handle));
    if (s) atomic_fetch_add(&s->references, 1);
    pthread_mutex_unlock(&list_lock);
    if (!s) stream_error(AXCL_ID_ILLEGAL_PARAM, "no stream of ours, or one already destroyed or reset with its device");
    return s;
}

/* ---- the thread ------------------------------------------------------------------------------------------------------- */

static bool before(uint32_t a, uint32_t b) { return (int32_t)(a - b) < 0; } /* they wrap around */

/* Whether somebody waits for the stream. */
static bool retire_one(emu_stream *s, emu_op *op, axclError error)
{
    axclError none = 0;
    if (error) atomic_compare_exchange_strong(&s->error, &none, error);
    pthread_mutex_lock(&s->retire); /* emu_stream_uses may be looking at op */
    emu_op_drop(op);
    uint32_t head = atomic_fetch_add(&s->head, 1) + 1;
    bool awaited = s->waiters, due = awaited && !before(head, s->wanted);
    pthread_mutex_unlock(&s->retire);
    if (due) emu_futex_wake(&s->head);
    return awaited;
}

static void wake_thread(emu_stream *s)
{
    if (atomic_load(&s->asleep) && atomic_exchange(&s->asleep, 0)) emu_futex_wake(&s->asleep);
}

static bool take_turn(emu_stream *s) { return !atomic_load(&s->turn) && !atomic_exchange(&s->turn, true); }

static void end_turn(emu_stream *s)
{
    atomic_store(&s->turn, false);
    if (atomic_load(&s->tail) != atomic_load(&s->head)) wake_thread(s);
}

/* The caller has the turn, and head != tail. Whether somebody waits for the stream. */
static bool run_next(emu_stream *s, uint32_t head)
{
    emu_op *op = &s->ring[head % RING];
    axclError error = s->stop ? AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_FAIL) : emu_op_run(op, s->device, &s->ready, &s->stop);
    atomic_store_explicit(&s->end, s->ready, memory_order_relaxed);
    return retire_one(s, op, error);
}

static bool idle(emu_stream *s) { return !s->stop && (atomic_load(&s->tail) == atomic_load(&s->head) || s->turn); }

static void sleep_while_idle(emu_stream *s)
{
    atomic_store(&s->asleep, 1);
    while (idle(s) && atomic_load(&s->asleep)) emu_futex_wait(&s->asleep, 1, 0);
    atomic_store(&s->asleep, 0);
}

static void doze(long ns)
{
    struct timespec t = {0, ns};
    nanosleep(&t, NULL);
}

/* Until stopped, and then until what was queued is dropped: a submission may be waiting for room. */
static void *work(void *arg)
{
    emu_stream *s = arg;
    while (!s->stop || atomic_load(&s->tail) != atomic_load(&s->head)) {
        uint32_t head = atomic_load(&s->head);
        bool worked = false, awaited = false;
        /* woken by the first of some work, it would only get in the way of a thread that is about to do it all */
        if (atomic_exchange(&s->helped, false) || s->stop) doze(GIVE_WAY_NS);
        if (head != atomic_load(&s->tail) && take_turn(s)) {
            for (head = atomic_load(&s->head); head != atomic_load(&s->tail); head++, worked = true) awaited = run_next(s, head);
            end_turn(s);
        }
        /* not worth spinning where those who submit wait, too: they can do the next work themselves */
        if (!worked || awaited || !emu_spin_while(&s->tail, head, &s->worker_spin)) sleep_while_idle(s);
    }
    return NULL;
}

/* Runs queued work up to `target` on the calling thread, which waits for it anyway, unless somebody else is at it. Left to the stream's
 * thread: everything while time is modelled (only the modelled card is waited for), what may block, and a deadline that is near. */
static void help(emu_stream *s, uint32_t target, int64_t deadline)
{
    if (emu_paced || !take_turn(s)) return;
    for (uint32_t head = atomic_load(&s->head); before(head, target) && !s->stop; head++) {
        const emu_op *op = &s->ring[head % RING];
        if (op->kind == EMU_OP_WAIT || op->fault.kind != EMU_FAULT_NONE) break;
        if (deadline && deadline - emu_now() < HELP_NS) break;
        run_next(s, head);
        s->helped = true;
    }
    end_turn(s);
}

/* ---- submitting and waiting --------------------------------------------------------------------------------------------- */

static void expect(emu_stream *s, uint32_t target)
{
    pthread_mutex_lock(&s->retire);
    if (!s->waiters++ || before(target, s->wanted)) s->wanted = target;
    pthread_mutex_unlock(&s->retire);
}

static void expect_no_more(emu_stream *s)
{
    pthread_mutex_lock(&s->retire);
    s->waiters--;
    pthread_mutex_unlock(&s->retire);
}

/* true: `target` operations have ended; false: the deadline came first (ns, 0 = none) */
static bool wait_for(emu_stream *s, uint32_t target, int64_t deadline)
{
    uint32_t head = atomic_load(&s->head);
    bool late = false;
    if (!before(head, target)) return true;
    expect(s, target);
    do head = atomic_load(&s->head);
    while (before(head, target) && emu_spin_while(&s->head, head, &s->waiter_spin));
    for (head = atomic_load(&s->head); before(head, target) && !late; head = atomic_load(&s->head)) {
        late = deadline && emu_now() >= deadline;
        if (!late) emu_futex_wait(&s->head, head, deadline);
    }
    expect_no_more(s);
    return !late;
}

static void push(emu_stream *s, const emu_op *op)
{
    uint32_t tail = atomic_load_explicit(&s->tail, memory_order_relaxed);
    if (tail - atomic_load(&s->head) >= RING) wait_for(s, tail - RING + 1, 0);
    s->ring[tail % RING] = *op;
    atomic_store(&s->tail, tail + 1);
    wake_thread(s);
}

static axclError check_stream(const emu_stream *s, const emu_device *device)
{
    if (s->stop) return stream_error(AXCL_ID_ILLEGAL_PARAM, "the stream is being destroyed");
    if (s->device != device && emu_config.strict)
        return stream_error(AXCL_ID_ILLEGAL_PARAM, "the stream belongs to another device than the thread's context");
    return 0;
}

axclError emu_stream_submit(axclrtStream handle, emu_device *device, emu_op *op)
{
    emu_stream *s = retain(handle);
    axclError error = s ? check_stream(s, device) : AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_ILLEGAL_PARAM);
    int async = emu_config.async;
    if (!error && async == EMU_ASYNC_REFUSED)
        error = stream_error(AXCL_ID_UNSUPPORTED, "asynchronous calls are switched off (setting ASYNC=0)");
    if (error) emu_op_drop(op);
    else if (async == EMU_ASYNC_SYNC) error = emu_op_now(op, device);
    else {
        emu_fault_submission(device);
        op->submitted = emu_time_submit();
        pthread_mutex_lock(&s->submit);
        error = check_stream(s, device); /* again: another thread may have begun to destroy it */
        if (!error) push(s, op);
        pthread_mutex_unlock(&s->submit);
        if (error) emu_op_drop(op);
    }
    if (s) release(s);
    return error;
}

static axclError synchronise(emu_stream *s, int64_t deadline)
{
    axclError timeout = AXCL_ERR_STREAM_SYNC_TIMEOUT;
    uint32_t target = atomic_load(&s->tail);
    help(s, target, deadline);
    if (!wait_for(s, target, deadline)) return emu_refuse(timeout, "the stream was not done in time");
    if (!emu_time_wait(s->device, s->end, deadline, &s->stop)) return emu_refuse(timeout, "the modelled card was not done in time");
    if (s->stop) return stream_error(AXCL_ID_FAIL, "the stream was destroyed while a thread waited for it");
    return atomic_exchange(&s->error, 0);
}

/* Is any part of [host, host + n) an operand of op? */
static bool op_uses(const emu_op *op, const uint8_t *host, size_t n)
{
    const uint8_t *end = host + n;
    if (op->dst.host && op->dst.host < end && host < op->dst.host + op->count) return true;
    if (op->src.host && op->src.host < end && host < op->src.host + op->count) return true;
    for (int i = 0; op->plan && i < op->plan->num_in; i++)
        if (op->plan->in[i].host && op->plan->in[i].host < end && host < op->plan->in[i].host + op->plan->in_bytes[i]) return true;
    for (int i = 0; op->plan && i < op->plan->num_out; i++)
        if (op->plan->out[i].host && op->plan->out[i].host < end && host < op->plan->out[i].host + op->plan->out_bytes[i]) return true;
    return false;
}

bool emu_stream_uses(const uint8_t *host, size_t n)
{
    bool used = false;
    pthread_mutex_lock(&list_lock);
    for (emu_stream *s = streams; s && !used; s = s->next) {
        pthread_mutex_lock(&s->retire);
        for (uint32_t i = atomic_load(&s->head); i != atomic_load(&s->tail) && !used; i++) used = op_uses(&s->ring[i % RING], host, n);
        pthread_mutex_unlock(&s->retire);
    }
    pthread_mutex_unlock(&list_lock);
    return used;
}

/* ---- opening and closing ------------------------------------------------------------------------------------------------ */

static axclError start(emu_stream *s)
{
    sigset_t all, before;
    int32_t spin = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? EMU_SPIN_NS : 0;
    s->worker_spin = s->waiter_spin = spin;
    s->references = 1;
    pthread_mutex_init(&s->submit, NULL);
    pthread_mutex_init(&s->retire, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
    int failed = pthread_create(&s->thread, NULL, work, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed ? stream_error(AXCL_ID_STREAM_CREATE, "the host cannot start another thread") : 0;
}

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

/* Ends the thread. What was submitted between its last look and its end is dropped like all that was still queued. */
static void close_stream(emu_stream *s)
{
    s->stop = true;
    emu_release();
    pthread_mutex_lock(&s->submit); /* a submission in progress ends first */
    pthread_mutex_unlock(&s->submit);
    wake_thread(s);
    pthread_join(s->thread, NULL);
    while (!take_turn(s)) doze(GIVE_WAY_NS); /* a waiting thread ends the operation that it is at */
    while (atomic_load(&s->head) != atomic_load(&s->tail))
        retire_one(s, &s->ring[atomic_load(&s->head) % RING], AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_FAIL));
    emu_futex_wake(&s->head);
    release(s);
}

axclError axclrtCreateStream(axclrtStream *out)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtCreateStream, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_NULL_POINTER);
    emu_stream *s = calloc(1, sizeof *s);
    if (!s) return stream_error(AXCL_ID_STREAM_CREATE, "the host is out of memory");
    s->device = device;
    if ((error = start(s))) {
        free(s);
        return error;
    }
    pthread_mutex_lock(&list_lock);
    s->handle = emu_handle_new(EMU_STREAM, s);
    s->next = streams;
    streams = s;
    pthread_mutex_unlock(&list_lock);
    *out = emu_as_pointer(s->handle);
    if (s->handle) return 0;
    if (unlist(s)) close_stream(s);
    return stream_error(AXCL_ID_STREAM_CREATE, "too many streams");
}

static axclError destroy(emu_fn fn, axclrtStream handle, bool force)
{
    axclError error = emu_enter(fn, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    emu_stream *s = retain(handle);
    if (!s) return AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_STREAM_DESTROY);
    if (!force) wait_for(s, atomic_load(&s->tail), 0);
    if (unlist(s)) close_stream(s);
    release(s);
    return 0;
}

axclError axclrtDestroyStream(axclrtStream stream) { return destroy(EMU_FN_axclrtDestroyStream, stream, false); }
axclError axclrtDestroyStreamForce(axclrtStream stream) { return destroy(EMU_FN_axclrtDestroyStreamForce, stream, true); }

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
    for (emu_stream *s; (s = first_of(device)); release(s)) {
        if (report) emu_leak("stream %#llx was not destroyed", (unsigned long long)s->handle);
        if (unlist(s)) close_stream(s);
    }
}

/* ---- synchronising -------------------------------------------------------------------------------------------------------- */

axclError axclrtSynchronizeStream(axclrtStream handle)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtSynchronizeStream, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    emu_stream *s = retain(handle);
    if (!s) return AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_ILLEGAL_PARAM);
    emu_count_add(EMU_COUNT_WAITS, 1);
    error = synchronise(s, 0);
    release(s);
    return error;
}

static axclError hang(emu_stream *s, emu_fault fault, int64_t deadline)
{
    if (fault.kind == EMU_FAULT_FAIL_LATER) return emu_refuse(fault.code, "the synchronise was told to fail by the fault list");
    if (!emu_hang(s->device, fault.ms, &s->stop, fault.kind == EMU_FAULT_HANG ? deadline : 0))
        return emu_refuse(AXCL_ERR_STREAM_SYNC_TIMEOUT, "the stream was not done in time: it hangs, as the fault list told it to");
    return emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_TIMEOUT), "the synchronise hung, as the fault list told it to");
}

axclError axclrtSynchronizeStreamWithTimeout(axclrtStream handle, int32_t timeout_ms)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtSynchronizeStreamWithTimeout, EMU_NEEDS_CONTEXT, &device);
    emu_fault fault = emu_fault_armed();
    if (error) return error;
    if (timeout_ms < -1) return stream_error(AXCL_ID_ILLEGAL_PARAM, "a time-out is -1 (forever) or milliseconds from 0");
    emu_stream *s = retain(handle);
    if (!s) return AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_ILLEGAL_PARAM);
    emu_count_add(EMU_COUNT_WAITS, 1);
    int64_t deadline = timeout_ms < 0 ? 0 : emu_now() + (int64_t)timeout_ms * 1000000;
    error = fault.kind == EMU_FAULT_NONE ? synchronise(s, deadline) : hang(s, fault, deadline);
    release(s);
    return error;
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

/* Waits until every stream of the device is idle; leaves their errors for their own synchronise unless `take`. */
static axclError drain(emu_device *device, bool take)
{
    emu_stream *found[256];
    int count = 0;
    axclError error = 0, one = 0;
    gather(device, found, &count);
    for (int i = 0; i < count; i++) {
        if (take) one = synchronise(found[i], 0);
        else wait_for(found[i], atomic_load(&found[i]->tail), 0);
        if (!error) error = one;
        release(found[i]);
    }
    return error;
}

axclError emu_streams_drain(emu_device *device) { return drain(device, false); }

axclError axclrtSynchronizeDevice(void)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtSynchronizeDevice, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    emu_count_add(EMU_COUNT_WAITS, 1);
    return drain(device, true);
}
