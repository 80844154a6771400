/* Attention of one token over the rows its mask shows, with sums that are exact and therefore independent of row order.
 *
 * Scores are canonical fp32 dot products; p = exp(score - max) is rounded to a multiple of 2^-24; V is rounded to a
 * multiple of a power of two, g, chosen per dimension such that sum(p) * max|v| <= 2^53 * (2^-24 * g). Every partial
 * sum is then a multiple of 2^-24 * g and fits a double: the additions are exact, so neither their order nor the place
 * of a row matters. max, sum(p) and max|v| do not depend on order. Error of the result against exact arithmetic on the
 * same scores, n visible rows, m = max|v| of the dimension over them:
 *   p: n * 2^-25 * 2m / sum(p) at most (sum(p) >= 1), typically sqrt(n) instead of n;
 *   v: 2^-28 m (one row dominates) to 2^-16 m (4,096 equal rows); bf16 values down to 2^-20 m (one row) or 2^-8 m
 *      (4,096 rows) are not rounded at all.
 * Rounding the result to bf16 costs 2^-9 of it. Nothing limits n to 4,096: more rows only coarsen g.
 */
#ifndef AXPRESS_EMU_ATTENTION_H
#define AXPRESS_EMU_ATTENTION_H

#include <stdbool.h>

#include "math.h"

#define EMU_HIDDEN 10000.0f /* a mask this far below the largest of its row makes the weight exactly 0 */

typedef struct emu_run {
    int start, length; /* consecutive visible rows, never across the border between cache and own tokens */
} emu_run;

typedef struct emu_attention {
    int tokens, rows; /* chunk width and cache rows P; the mask of a token has rows + tokens entries */
    int heads, kv_heads, dims;
    float scale;
    const uint16_t *mask;
    const uint16_t *k_cache, *v_cache; /* [rows, kv_heads * dims] */
    const uint16_t *k_own, *v_own;     /* [tokens, kv_heads * dims] */
    const float *q;                    /* per token [heads, dims], ldq floats apart */
    size_t ldq;
    float *out;                        /* [tokens, heads * dims] */
    emu_run *runs;                     /* [tokens][emu_runs_room] */
    int *num_runs;                     /* [tokens] */
    /* [rows + tokens]: K or V of that row holds NaN or infinity; NULL when hidden rows need no look */
    const uint8_t *tainted;
    float *scores;                     /* per worker [heads / kv_heads][rows + tokens] */
    double *sums;                      /* per worker [2 * heads / kv_heads + 1][dims] */
} emu_attention;

static inline int emu_runs_room(int rows, int tokens)
{
    return (rows + tokens) / 2 + 3;
}

/* Whether the mask of a token shows anything: padding's does not. */
bool emu_attention_shows(const emu_attention *a, int token);
/* Finds the visible rows of a token: fills its runs and num_runs. */
void emu_attention_scan(const emu_attention *a, int token);
/* All heads that share one kv head of one token. */
void emu_attention_head(const emu_attention *a, int token, int kv_head, int worker);
/* tainted[r] for `count` rows of `width` elements. Returns whether there is any. */
bool emu_attention_taint(uint8_t *tainted, const uint16_t *k, const uint16_t *v, int count, int width);

#endif
