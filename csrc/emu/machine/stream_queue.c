/* Streams: a thread each, a ring of submitted work, in order. The ring is filled under the submit lock and emptied by
 * whoever has the turn: the stream's thread, or a thread that waits for the stream and comes before it (it saves the
 * hand-off between two threads, and what was computed is in the waiting thread's cache). No system call is made for a
 * submission while the stream's thread is awake.
 */
#include "stream_queue.h"

#include <signal.h>

#include "errors.h"
#include "futex.h"
#include "pacing.h"
#include "plan.h"
#include "profile.h"
#include "settings.h"

#define GIVE_WAY_NS 100000 /* how long the thread leaves new work to the thread that waited for the last and did it */
/* a waiting thread with less time than this leaves the work to the stream's thread: it keeps its deadline */
#define HELP_NS 250000000ll

static axclError stream_error(int id, const char *text)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_STREAM, id), "%s", text);
}

/* Who writes a word and then reads another, which somebody else writes before he reads the first, exchanges the first:
 * a store and a load in sequentially consistent order would do, but QEMU on x86-64 lets the load of an aarch64 program
 * overtake its store, and then both sleep. The same in pool.c. */

/* ---- the thread -------------------------------------------------------------------------------------------------- */

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
    atomic_exchange(&s->turn, false);
    if (atomic_load(&s->tail) != atomic_load(&s->head)) wake_thread(s);
}

/* The caller has the turn, and head != tail. Whether somebody waits for the stream. */
static bool run_next(emu_stream *s, uint32_t head)
{
    emu_op *op = &s->ring[head % EMU_RING];
    axclError error = s->stop ? AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_FAIL)
        : emu_op_run(op, s->device, &s->ready, &s->stop);
    atomic_store_explicit(&s->end, s->ready, memory_order_relaxed);
    return retire_one(s, op, error);
}

static bool idle(emu_stream *s) { return !s->stop && (atomic_load(&s->tail) == atomic_load(&s->head) || s->turn); }

static void sleep_while_idle(emu_stream *s)
{
    atomic_exchange(&s->asleep, 1);
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
            for (head = atomic_load(&s->head); head != atomic_load(&s->tail); head++, worked = true)
                awaited = run_next(s, head);
            end_turn(s);
        }
        /* not worth spinning where those who submit wait, too: they can do the next work themselves */
        if (!worked || awaited || !emu_spin_while(&s->tail, head, &s->worker_spin)) sleep_while_idle(s);
    }
    return NULL;
}

/* Runs queued work up to `target` on the calling thread, which waits for it anyway, unless somebody else is at it. Left
 * to the stream's thread: everything while time is modelled (only the modelled card is waited for), what may block, and
 * a deadline that is near. */
static void help(emu_stream *s, uint32_t target, int64_t deadline)
{
    if (emu_paced || !take_turn(s)) return;
    for (uint32_t head = atomic_load(&s->head); before(head, target) && !s->stop; head++) {
        const emu_op *op = &s->ring[head % EMU_RING];
        if (op->kind == EMU_OP_WAIT || op->fault.kind != EMU_FAULT_NONE) break;
        if (deadline && deadline - emu_now() < HELP_NS) break;
        run_next(s, head);
        s->helped = true;
    }
    end_turn(s);
}

/* ---- submitting and waiting -------------------------------------------------------------------------------------- */

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
    if (tail - atomic_load(&s->head) >= EMU_RING) wait_for(s, tail - EMU_RING + 1, 0);
    s->ring[tail % EMU_RING] = *op;
    atomic_exchange(&s->tail, tail + 1);
    wake_thread(s);
}

axclError emu_queue_check(const emu_stream *s, const emu_device *device)
{
    if (s->stop) return stream_error(AXCL_ID_ILLEGAL_PARAM, "the stream is being destroyed");
    if (s->device != device && emu_config.strict)
        return stream_error(AXCL_ID_ILLEGAL_PARAM, "the stream belongs to another device than the thread's context");
    return 0;
}

axclError emu_queue_push(emu_stream *s, const emu_device *device, const emu_op *op)
{
    pthread_mutex_lock(&s->submit);
    axclError error = emu_queue_check(s, device); /* again: another thread may have begun to destroy it */
    if (!error) push(s, op);
    pthread_mutex_unlock(&s->submit);
    return error;
}

void emu_queue_drain(emu_stream *s) { wait_for(s, atomic_load(&s->tail), 0); }

axclError emu_queue_synchronise(emu_stream *s, int64_t deadline)
{
    axclError timeout = AXCL_ERR_STREAM_SYNC_TIMEOUT;
    uint32_t target = atomic_load(&s->tail);
    help(s, target, deadline);
    if (!wait_for(s, target, deadline)) return emu_refuse(timeout, "the stream was not done in time");
    if (!emu_time_wait(s->device, s->end, deadline, &s->stop))
        return emu_refuse(timeout, "the modelled card was not done in time");
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
        if (op->plan->in[i].host && op->plan->in[i].host < end && host < op->plan->in[i].host + op->plan->in_bytes[i])
            return true;
    for (int i = 0; op->plan && i < op->plan->num_out; i++)
        if (op->plan->out[i].host && op->plan->out[i].host < end
            && host < op->plan->out[i].host + op->plan->out_bytes[i])
            return true;
    return false;
}

bool emu_queue_uses(emu_stream *s, const uint8_t *host, size_t n)
{
    bool used = false;
    pthread_mutex_lock(&s->retire);
    for (uint32_t i = atomic_load(&s->head); i != atomic_load(&s->tail) && !used; i++)
        used = op_uses(&s->ring[i % EMU_RING], host, n);
    pthread_mutex_unlock(&s->retire);
    return used;
}

/* ---- opening and closing ----------------------------------------------------------------------------------------- */

bool emu_queue_open(emu_stream *s)
{
    sigset_t all, before;
    int32_t spin = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? EMU_SPIN_NS : 0;
    s->worker_spin = s->waiter_spin = spin;
    pthread_mutex_init(&s->submit, NULL);
    pthread_mutex_init(&s->retire, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
    int failed = pthread_create(&s->thread, NULL, work, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !failed;
}

/* Ends the thread. What was submitted between its last look and its end is dropped like all that was still queued. */
void emu_queue_close(emu_stream *s)
{
    atomic_exchange(&s->stop, true);
    emu_release();
    pthread_mutex_lock(&s->submit); /* a submission in progress ends first */
    pthread_mutex_unlock(&s->submit);
    wake_thread(s);
    pthread_join(s->thread, NULL);
    while (!take_turn(s)) doze(GIVE_WAY_NS); /* a waiting thread ends the operation that it is at */
    while (atomic_load(&s->head) != atomic_load(&s->tail))
        retire_one(s, &s->ring[atomic_load(&s->head) % EMU_RING], AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_FAIL));
    emu_futex_wake(&s->head);
}
