/* Counting, and the list of what was left open. */
#include "counters.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

emu_counters emu_counted;
const char *const emu_effect_names[EMU_NUM_EFFECTS] = {
    "fail", "later", "hang", "block", "offline", "dead", "nan", "heat", "memory", "leak", "driver"};

void emu_count_call(emu_fn fn) { atomic_fetch_add_explicit(&emu_counted.calls[fn], 1, memory_order_relaxed); }

void emu_count_add(emu_count what, uint64_t n)
{
    atomic_fetch_add_explicit(&emu_counted.counts[what], n, memory_order_relaxed);
}

void emu_count_effect(emu_effect effect)
{
    atomic_fetch_add_explicit(&emu_counted.counts[EMU_COUNT_EFFECTS + (int)effect], 1, memory_order_relaxed);
}

void emu_count_copy(axclrtMemcpyKind kind, size_t n)
{
    atomic_fetch_add_explicit(&emu_counted.bytes[kind & 3], n, memory_order_relaxed);
    atomic_fetch_add_explicit(&emu_counted.copies[kind & 3], 1, memory_order_relaxed);
}

void emu_counters_reset(void)
{
    for (int i = 0; i < EMU_NUM_FUNCTIONS; i++) emu_counted.calls[i] = 0;
    for (int i = 0; i < EMU_NUM_COUNTS; i++) emu_counted.counts[i] = 0;
    for (int i = 0; i < 4; i++) emu_counted.bytes[i] = emu_counted.copies[i] = 0;
}

/* ---- leaks ------------------------------------------------------------------------------------------------------- */

#define MAX_LEAKS 64
static pthread_mutex_t leak_lock = PTHREAD_MUTEX_INITIALIZER;
static char leaks[MAX_LEAKS][128];
static int num_leaks, num_printed;

void emu_leak(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pthread_mutex_lock(&leak_lock);
    if (num_leaks < MAX_LEAKS) vsnprintf(leaks[num_leaks], sizeof leaks[0], format, args);
    num_leaks++;
    pthread_mutex_unlock(&leak_lock);
    va_end(args);
}

int emu_leaks_each(void (*visit)(void *arg, const char *sentence), void *arg)
{
    pthread_mutex_lock(&leak_lock);
    int kept = num_leaks < MAX_LEAKS ? num_leaks : MAX_LEAKS, more = num_leaks - kept;
    for (int i = 0; i < kept; i++) visit(arg, leaks[i]);
    pthread_mutex_unlock(&leak_lock);
    return more;
}

void emu_leaks_print(void)
{
    pthread_mutex_lock(&leak_lock);
    int listed = num_leaks < MAX_LEAKS ? num_leaks : MAX_LEAKS;
    for (; num_printed < listed; num_printed++) fprintf(stderr, "axpress emulator: leak: %s\n", leaks[num_printed]);
    if (num_leaks > MAX_LEAKS && num_printed == MAX_LEAKS) {
        fprintf(stderr, "axpress emulator: leak: ... and %d more\n", num_leaks - MAX_LEAKS);
        num_printed++;
    }
    pthread_mutex_unlock(&leak_lock);
}

void emu_leaks_clear(void)
{
    pthread_mutex_lock(&leak_lock);
    num_leaks = num_printed = 0;
    pthread_mutex_unlock(&leak_lock);
}
