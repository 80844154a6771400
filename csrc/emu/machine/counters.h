/* Exact counts of calls, bytes and work; sentences about what was left open. */
#ifndef AXPRESS_EMU_COUNTERS_H
#define AXPRESS_EMU_COUNTERS_H

#include <stddef.h>

#include "functions.h"

/* What a fault did. */
typedef enum emu_effect {
    EMU_EFFECT_FAIL, EMU_EFFECT_LATER, EMU_EFFECT_HANG, EMU_EFFECT_BLOCK, EMU_EFFECT_OFFLINE, EMU_EFFECT_DEAD,
    EMU_EFFECT_NAN, EMU_EFFECT_HEAT, EMU_EFFECT_MEMORY, EMU_EFFECT_LEAK, EMU_EFFECT_DRIVER, EMU_NUM_EFFECTS
} emu_effect;

extern const char *const emu_effect_names[EMU_NUM_EFFECTS];

typedef enum emu_count {
    EMU_COUNT_SUBMISSIONS, EMU_COUNT_WAITS, EMU_COUNT_BINDS, EMU_COUNT_DECODE, EMU_COUNT_CHUNK, EMU_COUNT_HEAD,
    EMU_COUNT_VISION,     EMU_COUNT_LAYER_ROWS, EMU_COUNT_INT8, EMU_COUNT_OFFLINE, EMU_COUNT_MODELLED_NS,
    EMU_COUNT_EFFECTS, EMU_NUM_COUNTS = EMU_COUNT_EFFECTS + EMU_NUM_EFFECTS
} emu_count;

typedef struct emu_counters {
    _Atomic uint64_t calls[EMU_NUM_FUNCTIONS], counts[EMU_NUM_COUNTS];
    _Atomic uint64_t bytes[4], copies[4]; /* by axclrtMemcpyKind */
} emu_counters;

extern emu_counters emu_counted;

void emu_count_call(emu_fn fn);
void emu_count_add(emu_count what, uint64_t n);
void emu_count_effect(emu_effect effect);
void emu_count_copy(axclrtMemcpyKind kind, size_t n);
void emu_counters_reset(void);

void emu_leak(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Calls visit(arg, sentence) for every leak kept; returns how many more there were. */
int emu_leaks_each(void (*visit)(void *arg, const char *sentence), void *arg);
void emu_leaks_print(void);
void emu_leaks_clear(void);

#endif
