#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "model.h"

/* Pauses of some 40 ns before a thread sleeps: longer than the gap between two phases of a layer or two layers. A worker
 * whose waiting was in vain waits half as long the next time: other programs want the cores, too. */
#define LEAST_SPINS 64
#define MOST_SPINS 2048

/* ticket = job number << 8 | workers inside it << 1 | open. A worker enters by incrementing the count while the job is
 * open; once the caller has closed it nobody enters any more, so a worker that is slow to wake delays nothing. */
#define OPEN 1u
#define INSIDE 2u
#define NUMBER_SHIFT 8

static struct {
    pthread_mutex_t owner;    /* held by the caller of the job */
    pthread_mutex_t lock;     /* guards sleeping and stopping */
    pthread_cond_t wake, idle;
    pthread_t threads[EMU_MAX_THREADS];
    int started;              /* workers running; owner's */
    _Atomic int wanted;       /* threads per job, 0 = not chosen yet */
    _Atomic int sleepers;
    _Atomic bool stopping, caller_waits;
    _Atomic uint64_t ticket;
    struct { /* a share of the job: who comes first takes its items in order, and then those that others left */
        _Alignas(64) _Atomic int next;
        int end;
    } shares[EMU_MAX_THREADS];
    int num_shares;
    emu_pool_fn fn;
    void *context;
} pool = {.owner = PTHREAD_MUTEX_INITIALIZER,
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER,
          .idle = PTHREAD_COND_INITIALIZER};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work(int worker)
{
    for (int i = 0; i < pool.num_shares; i++) {
        int share = (worker + i) % pool.num_shares, item;
        while ((item = atomic_fetch_add(&pool.shares[share].next, 1)) < pool.shares[share].end)
            pool.fn(pool.context, item, worker);
    }
}

/* Waits until a job after `seen` is open; false when the pool stops. */
static bool wait_for_job(uint64_t seen, int *spins)
{
    for (int i = 0; i < *spins; i++) {
        uint64_t ticket = atomic_load(&pool.ticket);
        if ((ticket & OPEN) && ticket >> NUMBER_SHIFT != seen) {
            *spins = MOST_SPINS;
            return true;
        }
        if (atomic_load(&pool.stopping)) return false;
        relax();
    }
    *spins = *spins / 2 > LEAST_SPINS ? *spins / 2 : LEAST_SPINS;
    bool found = false;
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.sleepers, 1);
    while (!atomic_load(&pool.stopping)) {
        uint64_t ticket = atomic_load(&pool.ticket);
        found = (ticket & OPEN) && ticket >> NUMBER_SHIFT != seen;
        if (found) break;
        pthread_cond_wait(&pool.wake, &pool.lock);
    }
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.lock);
    return found;
}

static void leave(void)
{
    uint64_t ticket = atomic_fetch_sub(&pool.ticket, INSIDE) - INSIDE;
    if ((ticket & ((1u << NUMBER_SHIFT) - 1)) != 0 || !atomic_load(&pool.caller_waits)) return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_signal(&pool.idle);
    pthread_mutex_unlock(&pool.lock);
}

static void *worker_main(void *argument)
{
    int worker = (int)(intptr_t)argument, spins = LEAST_SPINS;
    uint64_t seen = UINT64_MAX;
    while (wait_for_job(seen, &spins)) {
        uint64_t ticket = atomic_load(&pool.ticket);
        while ((ticket & OPEN) && !atomic_compare_exchange_weak(&pool.ticket, &ticket, ticket + INSIDE)) continue;
        if (!(ticket & OPEN)) continue;
        seen = ticket >> NUMBER_SHIFT;
        work(worker);
        leave();
    }
    return NULL;
}

static int cpus(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n > EMU_MAX_THREADS ? EMU_MAX_THREADS : n;
}

/* In a child after fork no worker exists and a lock may be held by nobody. */
static void forget_threads(void)
{
    pool.started = 0;
    atomic_store(&pool.sleepers, 0);
    atomic_store(&pool.ticket, 0);
    pthread_mutex_init(&pool.owner, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.idle, NULL);
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, forget_threads);
}

/* Owner held. Fewer workers than wanted is no error: the work is only slower. */
static void start_workers(int wanted)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* signals belong to the program's own threads */
    while (pool.started < wanted - 1) {
        if (pthread_create(&pool.threads[pool.started], NULL, worker_main, (void *)(intptr_t)(pool.started + 1)) != 0)
            break;
        pool.started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void stop_workers(void)
{
    pthread_mutex_lock(&pool.lock);
    atomic_store(&pool.stopping, true);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    for (int i = 0; i < pool.started; i++) pthread_join(pool.threads[i], NULL);
    pool.started = 0;
    atomic_store(&pool.stopping, false);
}

static void close_job(void)
{
    uint64_t ticket = atomic_fetch_and(&pool.ticket, ~(uint64_t)OPEN) & ~(uint64_t)OPEN;
    for (int i = 0; i < MOST_SPINS && (ticket & 0xff); i++) {
        relax();
        ticket = atomic_load(&pool.ticket);
    }
    if (!(ticket & 0xff)) return;
    pthread_mutex_lock(&pool.lock);
    atomic_exchange(&pool.caller_waits, true);
    while (atomic_load(&pool.ticket) & 0xff) pthread_cond_wait(&pool.idle, &pool.lock);
    atomic_store(&pool.caller_waits, false);
    pthread_mutex_unlock(&pool.lock);
}

void emu_pool_run_alone(emu_pool_fn fn, void *context, int items)
{
    for (int i = 0; i < items; i++) fn(context, i, 0);
}

void emu_pool_run(emu_pool_fn fn, void *context, int items)
{
    int wanted = emu_threads_get();
    if (items < 2 || wanted < 2 || pthread_mutex_trylock(&pool.owner) != 0) {
        emu_pool_run_alone(fn, context, items);
        return;
    }
    if (pool.started > wanted - 1) stop_workers();
    if (pool.started < wanted - 1) start_workers(wanted);
    pool.fn = fn;
    pool.context = context;
    pool.num_shares = wanted;
    for (int i = 0; i < wanted; i++) {
        atomic_store(&pool.shares[i].next, (int)((int64_t)items * i / wanted));
        pool.shares[i].end = (int)((int64_t)items * (i + 1) / wanted);
    }
    uint64_t number = (atomic_load(&pool.ticket) >> NUMBER_SHIFT) + 1;
    atomic_exchange(&pool.ticket, number << NUMBER_SHIFT | OPEN); /* not a store: see stream_queue.c */
    if (atomic_load(&pool.sleepers) > 0) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.wake);
        pthread_mutex_unlock(&pool.lock);
    }
    work(0);
    close_job();
    pthread_mutex_unlock(&pool.owner);
}

void emu_threads_set(int n)
{
    atomic_store(&pool.wanted, n < 1 ? cpus() : n > EMU_MAX_THREADS ? EMU_MAX_THREADS : n);
}

int emu_threads_get(void)
{
    int n = atomic_load(&pool.wanted);
    if (n == 0) {
        n = cpus();
        atomic_store(&pool.wanted, n);
    }
    return n;
}

void emu_threads_stop(void)
{
    pthread_mutex_lock(&pool.owner);
    stop_workers();
    pthread_mutex_unlock(&pool.owner);
}
