/* Exact counts of calls, bytes and work; the report; what was left open. */
#include "emu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Atomic uint64_t calls[EMU_NUM_FUNCTIONS], counts[EMU_NUM_COUNTS], bytes[4], copies[4];

void emu_count_call(emu_fn fn) { atomic_fetch_add_explicit(&calls[fn], 1, memory_order_relaxed); }

void emu_count_add(emu_count what, uint64_t n) { atomic_fetch_add_explicit(&counts[what], n, memory_order_relaxed); }

void emu_count_copy(axclrtMemcpyKind kind, size_t n)
{
    atomic_fetch_add_explicit(&bytes[kind & 3], n, memory_order_relaxed);
    atomic_fetch_add_explicit(&copies[kind & 3], 1, memory_order_relaxed);
}

int axemu_reset_counters(void)
{
    for (int i = 0; i < EMU_NUM_FUNCTIONS; i++) calls[i] = 0;
    for (int i = 0; i < EMU_NUM_COUNTS; i++) counts[i] = 0;
    for (int i = 0; i < 4; i++) bytes[i] = copies[i] = 0;
    return 0;
}

/* ---- leaks --------------------------------------------------------------------------------------------------------- */

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

/* ---- the report ---------------------------------------------------------------------------------------------------- */

typedef struct text {
    char *buffer;
    size_t size, length;
} text;

static void add(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(text *t, const char *format, ...)
{
    va_list args;
    size_t room = t->length < t->size ? t->size - t->length : 0;
    va_start(args, format);
    int n = vsnprintf(room ? t->buffer + t->length : NULL, room, format, args);
    va_end(args);
    if (n > 0) t->length += (size_t)n;
}

static void add_string(text *t, const char *s)
{
    add(t, "\"");
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') add(t, "\\%c", *s);
        else if ((unsigned char)*s < 0x20) add(t, "\\u%04x", (unsigned char)*s);
        else add(t, "%c", *s);
    }
    add(t, "\"");
}

static unsigned long long get(_Atomic uint64_t *counter) { return atomic_load_explicit(counter, memory_order_relaxed); }

static void add_calls(text *t)
{
    const char *comma = "";
    add(t, "{\"calls\":{");
    for (int i = 0; i < EMU_NUM_FUNCTIONS; i++) {
        if (!get(&calls[i])) continue;
        add(t, "%s\"%s\":%llu", comma, emu_fn_name((emu_fn)i), get(&calls[i]));
        comma = ",";
    }
    add(t, "},\"submissions\":%llu,\"waits\":%llu", get(&counts[EMU_COUNT_SUBMISSIONS]), get(&counts[EMU_COUNT_WAITS]));
}

static void add_by_kind(text *t, const char *name, _Atomic uint64_t *values)
{
    add(t, ",\"%s\":{\"h2d\":%llu,\"d2h\":%llu,\"d2d\":%llu,\"h2h\":%llu}", name, get(&values[AXCL_COPY_HOST_TO_DEVICE]),
        get(&values[AXCL_COPY_DEVICE_TO_HOST]), get(&values[AXCL_COPY_DEVICE_TO_DEVICE]), get(&values[AXCL_COPY_HOST_TO_HOST]));
}

static void add_memory(text *t)
{
    unsigned long long used = 0, peak = 0, total = 0, live = 0;
    for (int i = 0; emu_initialised && i < emu_num_devices; i++) {
        emu_memory *m = &emu_devices[i].memory;
        pthread_mutex_lock(&m->lock);
        used += m->used, peak += m->peak, live += m->count;
        pthread_mutex_unlock(&m->lock);
        total += emu_memory_total(&emu_devices[i]);
    }
    add(t, ",\"memory\":{\"device_used\":%llu,\"device_peak\":%llu,\"device_total\":%llu,\"pinned_used\":%llu,\"allocations\":%llu}",
        used, peak, total, (unsigned long long)emu_pinned_used(), live);
}

static void add_leaks(text *t)
{
    pthread_mutex_lock(&leak_lock);
    add(t, ",\"leaks\":[");
    for (int i = 0; i < num_leaks && i < MAX_LEAKS; i++) {
        add(t, i ? "," : "");
        add_string(t, leaks[i]);
    }
    if (num_leaks > MAX_LEAKS) add(t, ",\"... and %d more\"", num_leaks - MAX_LEAKS);
    add(t, "]");
    pthread_mutex_unlock(&leak_lock);
}

int axemu_report(char *buffer, size_t size)
{
    text t = {buffer, buffer ? size : 0, 0};
    add_calls(&t);
    add_by_kind(&t, "bytes", bytes);
    add_by_kind(&t, "copies", copies);
    add(&t, ",\"executes\":{\"layer_decode\":%llu,\"layer_chunk\":%llu,\"head\":%llu}", get(&counts[EMU_COUNT_DECODE]),
        get(&counts[EMU_COUNT_CHUNK]), get(&counts[EMU_COUNT_HEAD]));
    add(&t, ",\"binds\":%llu,\"submitted_offline\":%llu,\"modelled_ns\":%llu", get(&counts[EMU_COUNT_BINDS]),
        get(&counts[EMU_COUNT_OFFLINE]), get(&counts[EMU_COUNT_MODELLED_NS]));
    add_memory(&t);
    add_leaks(&t);
    add(&t, ",\"profile\":");
    add_string(&t, emu_profile_name());
    add(&t, ",\"mode\":\"%s\",\"isa\":\"%s\",\"emulated\":true}", emu_config.strict ? "strict" : "tolerant", emu_math_isa());
    return (int)t.length;
}

/* COUNTERS=1: the report on one line of standard error when the process ends. */
__attribute__((destructor)) static void print_at_exit(void)
{
    if (!emu_config.counters) return;
    int n = axemu_report(NULL, 0);
    char *buffer = malloc((size_t)n + 1);
    if (!buffer) return;
    axemu_report(buffer, (size_t)n + 1);
    fprintf(stderr, "%s\n", buffer);
    free(buffer);
}
