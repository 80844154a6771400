/* The report: what was counted, what is in use, what was left open, as JSON. */
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "../arithmetic/model.h"
#include "../machine/counters.h"
#include "../machine/device.h"
#include "../machine/memory.h"
#include "../machine/pinned.h"
#include "../machine/profile.h"
#include "../machine/settings.h"
#include "exports.h"

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
        if (!get(&emu_counted.calls[i])) continue;
        add(t, "%s\"%s\":%llu", comma, emu_fn_name((emu_fn)i), get(&emu_counted.calls[i]));
        comma = ",";
    }
    add(t, "},\"submissions\":%llu,\"waits\":%llu", get(&emu_counted.counts[EMU_COUNT_SUBMISSIONS]),
        get(&emu_counted.counts[EMU_COUNT_WAITS]));
}

static void add_by_kind(text *t, const char *name, _Atomic uint64_t *values)
{
    add(t, ",\"%s\":{\"h2d\":%llu,\"d2h\":%llu,\"d2d\":%llu,\"h2h\":%llu}", name,
        get(&values[AXCL_COPY_HOST_TO_DEVICE]), get(&values[AXCL_COPY_DEVICE_TO_HOST]),
        get(&values[AXCL_COPY_DEVICE_TO_DEVICE]), get(&values[AXCL_COPY_HOST_TO_HOST]));
}

static void add_effects(text *t)
{
    add(t, ",\"faults\":{");
    for (int i = 0; i < EMU_NUM_EFFECTS; i++)
        add(t, "%s\"%s\":%llu", i ? "," : "", emu_effect_names[i], get(&emu_counted.counts[EMU_COUNT_EFFECTS + i]));
    add(t, "}");
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
    add(t, ",\"memory\":{\"device_used\":%llu,\"device_peak\":%llu,\"device_total\":%llu,"
        "\"pinned_used\":%llu,\"allocations\":%llu}",
        used, peak, total, (unsigned long long)emu_pinned_used(), live);
}

static void add_devices(text *t)
{
    add(t, ",\"devices\":[");
    for (int i = 0; emu_initialised && i < emu_num_devices; i++)
        add(t, "%s{\"id\":%d,\"modelled_ns\":%llu}", i ? "," : "", emu_devices[i].id, get(&emu_devices[i].busy_ns));
    add(t, "]");
}

typedef struct leak_list {
    text *t;
    const char *comma;
} leak_list;

static void add_leak(void *arg, const char *sentence)
{
    leak_list *list = arg;
    add(list->t, "%s", list->comma);
    add_string(list->t, sentence);
    list->comma = ",";
}

static void add_leaks(text *t)
{
    leak_list list = {t, ""};
    add(t, ",\"leaks\":[");
    int more = emu_leaks_each(add_leak, &list);
    if (more) add(t, ",\"... and %d more\"", more);
    add(t, "]");
}

int axemu_report(char *buffer, size_t size)
{
    text t = {buffer, buffer ? size : 0, 0};
    add_calls(&t);
    add_by_kind(&t, "bytes", emu_counted.bytes);
    add_by_kind(&t, "copies", emu_counted.copies);
    add(&t, ",\"executes\":{\"layer_decode\":%llu,\"layer_chunk\":%llu,\"head\":%llu,\"vision\":%llu}",
        get(&emu_counted.counts[EMU_COUNT_DECODE]),
        get(&emu_counted.counts[EMU_COUNT_CHUNK]), get(&emu_counted.counts[EMU_COUNT_HEAD]),
        get(&emu_counted.counts[EMU_COUNT_VISION]));
    add(&t, ",\"layer_rows\":%llu,\"int8_executes\":%llu", get(&emu_counted.counts[EMU_COUNT_LAYER_ROWS]),
        get(&emu_counted.counts[EMU_COUNT_INT8]));
    add(&t, ",\"binds\":%llu,\"submitted_offline\":%llu,\"modelled_ns\":%llu",
        get(&emu_counted.counts[EMU_COUNT_BINDS]),
        get(&emu_counted.counts[EMU_COUNT_OFFLINE]), get(&emu_counted.counts[EMU_COUNT_MODELLED_NS]));
    add_effects(&t);
    add_memory(&t);
    add_devices(&t);
    add_leaks(&t);
    add(&t, ",\"profile\":");
    add_string(&t, emu_profile_name());
    add(&t, ",\"mode\":\"%s\",\"isa\":\"%s\",\"emulated\":true}", emu_config.strict ? "strict" : "tolerant",
        emu_math_isa());
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
