#include "attention.h"

#include <math.h>

static size_t span(const emu_attention *a)
{
    return (size_t)a->rows + (size_t)a->tokens;
}

bool emu_attention_shows(const emu_attention *a, int token)
{
    return !(emu_math_kernels()->largest(a->mask + (size_t)token * span(a), (int)span(a)) < -EMU_HIDDEN);
}

/* What counts as visible is relative to the largest value, as softmax does not change when all scores move together: a
 * token that sees nothing (everything at -65536) attends to everything, as on the card. */
void emu_attention_scan(const emu_attention *a, int token)
{
    size_t n = span(a);
    const uint16_t *mask = a->mask + (size_t)token * n;
    emu_run *runs = a->runs + (size_t)token * (size_t)emu_runs_room(a->rows, a->tokens);
    float least = emu_math_kernels()->largest(mask, (int)n) - EMU_HIDDEN;
    int count = 0;
    bool inside = false;
    for (int i = 0; i < (int)n; i++) {
        bool visible = !(emu_from_bf16(mask[i]) <= least); /* NaN is looked at */
        if (visible && (!inside || i == a->rows)) runs[count++] = (emu_run){i, 0};
        if (visible) runs[count - 1].length++;
        inside = visible;
    }
    a->num_runs[token] = count;
}

bool emu_attention_taint(uint8_t *tainted, const uint16_t *k, const uint16_t *v, int count, int width)
{
    bool any = false;
    size_t n = (size_t)width;
    for (size_t r = 0; r < (size_t)count; r++) {
        tainted[r] = emu_has_nonfinite(k + r * n, 2 * n) || emu_has_nonfinite(v + r * n, 2 * n);
        any |= tainted[r] != 0;
    }
    return any;
}

/* Row r of cache-then-own K or V, at the first element of a kv head. */
static const uint16_t *row_of(const emu_attention *a, const uint16_t *cache, const uint16_t *own, int r, int kv_head)
{
    size_t width = (size_t)a->kv_heads * (size_t)a->dims, at = (size_t)kv_head * (size_t)a->dims;
    return r < a->rows ? cache + (size_t)r * width + at : own + (size_t)(r - a->rows) * width + at;
}

typedef struct head_task {
    const emu_attention *a;
    const emu_kernels *kernels;
    const uint16_t *mask;
    const float *q;
    const emu_run *runs;
    float *scores; /* [group][span] */
    double *acc;   /* [group][dims] */
    double *magic; /* [dims] */
    int num_runs, kv_head, group, visible;
} head_task;

/* Scores of the visible rows, side by side in scores[h]; then weights in their place. total[h]: their sum, NaN where a
 * score is NaN or +infinity. */
static void weigh_rows(head_task *t, double *total)
{
    const emu_attention *a = t->a;
    size_t ld = span(a), width = (size_t)a->kv_heads * (size_t)a->dims, dims = (size_t)a->dims;
    for (int h = 0; h < t->group; h++) total[h] = -INFINITY; /* the maximum, for now */
    t->visible = 0;
    for (int i = 0; i < t->num_runs; i++) {
        const emu_run run = t->runs[i];
        float *s = t->scores + t->visible;
        const uint16_t *k = row_of(a, a->k_cache, a->k_own, run.start, t->kv_head);
        t->kernels->dot[EMU_BF16](k, width, run.length, t->q, dims, t->group, dims, s, ld);
        for (int h = 0; h < t->group; h++) {
            float most = t->kernels->score(s + (size_t)h * ld, t->mask + run.start, run.length, a->scale);
            total[h] = most > total[h] ? most : total[h];
        }
        t->visible += run.length;
    }
    for (int h = 0; h < t->group; h++)
        total[h] = t->kernels->weights(t->scores + (size_t)h * ld, t->visible, (float)total[h]);
}

/* 1.5 * 2^exponent, within the range of normal numbers. */
static double one_and_a_half(int exponent)
{
    uint64_t bits = (uint64_t)(exponent + 1023) << 52 | (uint64_t)1 << 51;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The rounding constants of V: 1.5 * 2^52 times its grid (attention.h). */
static void choose_grid(head_task *t, const double *total)
{
    const emu_attention *a = t->a;
    size_t width = (size_t)a->kv_heads * (size_t)a->dims;
    uint16_t *most = (uint16_t *)t->acc; /* not in use yet */
    int exponent = 0, dims = a->dims;
    memset(most, 0, (size_t)dims * sizeof *most);
    for (int i = 0; i < t->num_runs; i++)
        t->kernels->magnitude(most, row_of(a, a->v_cache, a->v_own, t->runs[i].start, t->kv_head), width,
            t->runs[i].length, dims);
    double largest = 1.0;
    for (int h = 0; h < t->group; h++) largest = total[h] > largest ? total[h] : largest;
    frexp(largest, &exponent);
    for (int d = 0; d < dims; d++) t->magic[d] = one_and_a_half(exponent + (most[d] >> 7) - 127);
}

static void sum_rows(const head_task *t)
{
    const emu_attention *a = t->a;
    size_t ld = span(a), width = (size_t)a->kv_heads * (size_t)a->dims;
    memset(t->acc, 0, (size_t)t->group * (size_t)a->dims * sizeof *t->acc);
    int done = 0;
    for (int i = 0; i < t->num_runs; i++) {
        const uint16_t *v = row_of(a, a->v_cache, a->v_own, t->runs[i].start, t->kv_head);
        t->kernels->accumulate(t->acc, t->group, t->scores + done, ld, v, width, t->runs[i].length, t->magic, a->dims);
        done += t->runs[i].length;
    }
}

/* A hidden row weighs 0, but 0 * NaN and 0 * infinity are NaN, and a NaN or +infinity score survives any mask. */
static void spread_taint(const head_task *t, float *out, int row)
{
    const emu_attention *a = t->a;
    const uint16_t *k = row_of(a, a->k_cache, a->k_own, row, t->kv_head),
        *v = row_of(a, a->v_cache, a->v_own, row, t->kv_head);
    for (int h = 0; h < t->group; h++) {
        float *head = out + (size_t)h * (size_t)a->dims, s;
        t->kernels->dot[EMU_BF16](k, 0, 1, t->q + (size_t)h * (size_t)a->dims, 0, 1, (size_t)a->dims, &s, 0);
        bool whole = !(s * a->scale + emu_from_bf16(t->mask[row]) < INFINITY);
        for (int d = 0; d < a->dims; d++)
            if (whole || (v[d] & 0x7f80) == 0x7f80) head[d] = NAN;
    }
}

static void spread_all_taint(const head_task *t, float *out)
{
    int hidden = 0; /* first row after the last run */
    for (int i = 0; i <= t->num_runs; i++) {
        int stop = i < t->num_runs ? t->runs[i].start : (int)span(t->a);
        for (int row = hidden; row < stop; row++)
            if (t->a->tainted[row]) spread_taint(t, out, row);
        if (i < t->num_runs) hidden = stop + t->runs[i].length;
    }
}

void emu_attention_head(const emu_attention *a, int token, int kv_head, int worker)
{
    int group = a->heads / a->kv_heads;
    size_t dims = (size_t)a->dims, head = (size_t)kv_head * (size_t)group;
    /* acc, then total (group <= group * dims), then magic */
    double *sums = a->sums + (size_t)worker * (2 * (size_t)group + 1) * dims;
    head_task t = {.a = a,
                   .kernels = emu_math_kernels(),
                   .mask = a->mask + (size_t)token * span(a),
                   .q = a->q + (size_t)token * a->ldq + head * dims,
                   .runs = a->runs + (size_t)token * (size_t)emu_runs_room(a->rows, a->tokens),
                   .num_runs = a->num_runs[token],
                   .kv_head = kv_head,
                   .group = group,
                   .scores = a->scores + (size_t)worker * (size_t)group * span(a),
                   .acc = sums,
                   .magic = sums + 2 * (size_t)group * dims};
    double *total = sums + (size_t)group * dims;
    float *out = a->out + ((size_t)token * (size_t)a->heads + head) * dims;
    weigh_rows(&t, total);
    choose_grid(&t, total);
    sum_rows(&t);
    for (int h = 0; h < group; h++)
        for (size_t d = 0; d < dims; d++) out[(size_t)h * dims + d] = (float)(t.acc[(size_t)h * dims + d] / total[h]);
    if (a->tainted) spread_all_taint(&t, out);
}
