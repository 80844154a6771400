/* The modelled timeline.
 *
 * Work is done as fast as this CPU can; what a profile paces is when its end may be seen. Each device has four
 * resources (NPU, bus up, bus down, on-card copies) with the time at which each is free; an operation starts at the
 * latest of: its submission, the end of the one before it in its stream, its resource free. Nothing sleeps until
 * somebody waits, and then to an absolute time: no drift, and one sleep per wait. Submissions do not spin either: their
 * cost moves the thread's own clock, which a wait then has to reach. The modelled end is a lower bound: arithmetic that
 * takes longer than the card ends later.
 */
#include "pacing.h"

#include <errno.h>
#include <math.h>
#include <time.h>

#include "counters.h"
#include "profile.h"
#include "settings.h"

#define SPIN_NS 50000          /* the last bit of a wait is spun: a sleeping thread wakes this late */
#define SLICE_NS 50000000ll    /* longer sleeps look up in between whether they should stop */

static _Atomic double speed = 1.0;
static _Thread_local int64_t host_clock; /* when this thread's last call is over, as modelled */

int64_t emu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int emu_speed_set(double factor)
{
    if (!(factor >= 0.001 && factor <= 1e6)) return -1;
    speed = factor;
    return 0;
}

static int64_t scaled(double cost) { return (int64_t)(cost / speed); }

int64_t emu_time_submit(void)
{
    if (!emu_paced) return 0;
    int64_t now = emu_now();
    if (host_clock < now) host_clock = now;
    host_clock += scaled(emu_cost_submit());
    return host_clock;
}

/* The thermal model: working at full load the chip comes THERMAL_RISE above what TEMPERATURE says, idle back to it, each
 * by 1 - 1/e of the way in THERMAL_SECONDS of modelled time. The caller holds the clock. */
static double towards(double rise, double target, int64_t ns)
{
    double seconds = (double)ns * 1e-9 * speed;
    return target + (rise - target) * exp(-seconds / (emu_config.thermal_ms * 1e-3));
}

static void warm(emu_device *device, int64_t start, int64_t end)
{
    double full = emu_config.thermal_rise;
    if (full == 0) return;
    if (device->warmed_at < start) device->rise = towards(device->rise, 0, start - device->warmed_at);
    device->rise = towards(device->rise, full, end - start);
    device->warmed_at = end;
    if (emu_config.temperature + device->rise >= 120000) device->state = EMU_OFFLINE; /* the card resets itself */
}

int emu_time_rise(emu_device *device)
{
    pthread_mutex_lock(&device->clock);
    int64_t now = emu_now(), cooling = now - device->warmed_at;
    double rise = cooling > 0 ? towards(device->rise, 0, cooling) : device->rise;
    pthread_mutex_unlock(&device->clock);
    return (int)rise;
}

/* Adds what [start, end) adds to the time in which the card was busy; the caller holds the clock. */
static void count_busy(emu_device *device, int64_t start, int64_t end)
{
    if (start < device->busy_until) start = device->busy_until;
    if (end <= start) return;
    uint64_t busy = (uint64_t)((double)(end - start) * speed);
    emu_count_add(EMU_COUNT_MODELLED_NS, busy);
    device->busy_ns += busy;
    device->busy_until = end;
    warm(device, start, end);
}

int64_t emu_time_run(emu_device *device, int resource, int64_t ready, double cost)
{
    if (!emu_paced) return 0;
    pthread_mutex_lock(&device->clock);
    int64_t start = ready > device->free_at[resource] ? ready : device->free_at[resource];
    int64_t end = start + scaled(cost);
    device->free_at[resource] = end;
    count_busy(device, start, end);
    pthread_mutex_unlock(&device->clock);
    return end;
}

static void sleep_until(int64_t end)
{
    struct timespec t = {end / 1000000000, end % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) continue;
}

/* true: reached; false: stopped */
static bool wait_until(emu_device *device, uint32_t generation, int64_t end, const atomic_bool *stop)
{
    for (int64_t now = emu_now(); now < end - SPIN_NS; now = emu_now()) {
        if ((stop && *stop) || device->generation != generation) return false;
        sleep_until(end - SPIN_NS - now > SLICE_NS ? now + SLICE_NS : end - SPIN_NS);
    }
    while (emu_now() < end) continue;
    return true;
}

bool emu_time_wait(emu_device *device, int64_t end, int64_t deadline, const atomic_bool *stop)
{
    if (!emu_paced) return true;
    int64_t from = end > host_clock ? end : host_clock, now = emu_now();
    if (from < now) from = now; /* the card is done: what is left is the round trip */
    end = from + scaled(emu_cost_sync());
    bool late = deadline && end > deadline;
    wait_until(device, device->generation, late ? deadline : end, stop);
    if (late) return false;
    host_clock = end;
    pthread_mutex_lock(&device->clock);
    count_busy(device, from, end);
    pthread_mutex_unlock(&device->clock);
    return true;
}

void emu_time_take(emu_device *device, int resource, double cost)
{
    if (!emu_paced || cost <= 0) return;
    emu_time_wait(device, emu_time_run(device, resource, emu_time_submit(), cost), 0, NULL);
}
