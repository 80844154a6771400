#include <stdlib.h>
#include <string.h>

#include "logits_key.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define AX_AVX2 __attribute__((target("avx2")))
#define AX_HAS_AVX2() __builtin_cpu_supports("avx2")
#endif

double ax_logit_at(const ax_logits *logits, uint32_t token) { return value_of_bits(bits_at(logits, token)); }

/* ---- memory ---- */

bool ax_order_init(ax_order *order, uint32_t vocab) {
    memset(order, 0, sizeof *order);
    size_t n = vocab;
    order->vocab = vocab;
    order->num_blocks = vocab / AX_BLOCK + (vocab % AX_BLOCK != 0);
    order->block_max = malloc(order->num_blocks * sizeof *order->block_max);
    order->bins = calloc(65536, sizeof *order->bins);
    order->sort_keys[0] = malloc(n * sizeof(uint64_t));
    order->sort_keys[1] = malloc(n * sizeof(uint64_t));
    order->changed_sorted = malloc(n * sizeof(double));
    order->raw_value = malloc(n * sizeof(double));
    order->raw_count = malloc(n * sizeof(uint32_t));
    order->merged_value = malloc(n * sizeof(double));
    order->merged_count = malloc(n * sizeof(uint32_t));
    order->changes.ids = malloc(n * sizeof(uint32_t));
    order->changes.values = malloc(n * sizeof(double));
    bool ok = order->block_max && order->bins && order->sort_keys[0] && order->sort_keys[1] && order->changed_sorted &&
              order->raw_value && order->raw_count && order->merged_value && order->merged_count &&
              order->changes.ids && order->changes.values;
    if (!ok) ax_order_free(order);
    return ok;
}

void ax_order_free(ax_order *order) {
    free(order->block_max);
    free(order->bins);
    free(order->sort_keys[0]);
    free(order->sort_keys[1]);
    free(order->changed_sorted);
    free(order->raw_value);
    free(order->raw_count);
    free(order->merged_value);
    free(order->merged_count);
    free(order->changes.ids);
    free(order->changes.values);
    memset(order, 0, sizeof *order);
}

void ax_order_clear(ax_order *order) { memset(order->bins, 0, 65536 * sizeof *order->bins); }

/* ---- block maxima ---- */

/* Key of the best token, and that of each block.
 * Less 127, keys of negative NaNs wrap around to the top, above +inf, where those of positive NaNs are: one maximum
 * tells all. */
AX_INLINE int16_t wrapped_key(uint16_t bits) { return (int16_t)(key_of_bf16(bits) - 127); }

AX_INLINE int32_t scan_bf16(const uint16_t *x, uint32_t vocab, int32_t *block_max) {
    int32_t top = INT16_MIN;
    uint32_t whole = vocab / AX_BLOCK, rest = vocab % AX_BLOCK;
    for (uint32_t b = 0; b <= whole; b++, x += AX_BLOCK) {
        int16_t high = INT16_MIN;
        if (b < whole) {
            for (int i = 0; i < AX_BLOCK; i++)
                high = wrapped_key(x[i]) > high ? wrapped_key(x[i]) : high; /* vectorises */
        } else if (rest) {
            for (uint32_t i = 0; i < rest; i++) high = wrapped_key(x[i]) > high ? wrapped_key(x[i]) : high;
        } else {
            break;
        }
        block_max[b] = high + 127;
        top = block_max[b] > top ? block_max[b] : top;
    }
    return top;
}

AX_INLINE int32_t scan_f32(const float *x, uint32_t vocab, int32_t *block_max) {
    int32_t top = INT32_MIN, bottom = INT32_MAX;
    for (uint32_t b = 0; b * AX_BLOCK < vocab; b++) {
        int32_t high = INT32_MIN;
        for (uint32_t i = b * AX_BLOCK; i < block_end(vocab, b); i++) {
            uint32_t bits;
            memcpy(&bits, x + i, sizeof bits);
            int32_t key = key_of_f32(bits);
            high = key > high ? key : high;
            bottom = key < bottom ? key : bottom;
        }
        block_max[b] = high;
        top = high > top ? high : top;
    }
    return bottom < ~F32_INF ? INT32_MAX : top; /* a negative NaN counts as one above +inf */
}

#ifdef AX_AVX2
AX_AVX2 static int32_t scan_bf16_avx2(const uint16_t *x, uint32_t vocab, int32_t *block_max) {
    return scan_bf16(x, vocab, block_max);
}
#endif

static int32_t scan(const ax_logits *logits, int32_t *block_max) {
    if (logits->dtype == AX_F32) return scan_f32(logits->data, logits->vocab, block_max);
#ifdef AX_AVX2
    if (AX_HAS_AVX2()) return scan_bf16_avx2(logits->data, logits->vocab, block_max);
#endif
    return scan_bf16(logits->data, logits->vocab, block_max);
}

bool ax_order_scan(ax_order *order, const ax_logits *logits) {
    order->changes.num = 0;
    order->top_key = scan(logits, order->block_max);
    return order->top_key < (logits->dtype == AX_BF16 ? BF16_INF : F32_INF);
}

uint32_t ax_first_invalid(const ax_logits *logits) {
    for (uint32_t i = 0; i < logits->vocab; i++) {
        double value = ax_logit_at(logits, i);
        if (isnan(value) || value == INFINITY) return i;
    }
    return logits->vocab;
}

void ax_order_exclude_changes(ax_order *order, const ax_logits *logits) {
    const ax_changes *changes = &order->changes;
    for (uint32_t c = 0; c < changes->num;) {
        uint32_t block = changes->ids[c] / AX_BLOCK, end = block_end(logits->vocab, block), first = c;
        bool was_best = false;
        for (; c < changes->num && changes->ids[c] < end; c++)
            was_best |= key_at(logits, changes->ids[c]) == order->block_max[block];
        if (!was_best) continue;
        int32_t best = INT32_MIN;
        for (uint32_t i = block * AX_BLOCK; i < end; i++) {
            if (first < c && changes->ids[first] == i) {
                first++;
                continue;
            }
            int32_t key = key_at(logits, i);
            best = key > best ? key : best;
        }
        order->block_max[block] = best;
    }
}

double ax_order_best(const ax_order *order, const ax_logits *logits) {
    int32_t key = lowest_key(logits->dtype, -INFINITY) - 1;
    for (uint32_t b = 0; b < order->num_blocks; b++) key = order->block_max[b] > key ? order->block_max[b] : key;
    double best = value_of_key(logits->dtype, key);
    for (uint32_t c = 0; c < order->changes.num; c++)
        best = order->changes.values[c] > best ? order->changes.values[c] : best;
    return best;
}

double ax_order_representable(const ax_logits *logits, double value) {
    return value_of_key(logits->dtype, key_of_value(logits->dtype, value));
}

double ax_order_floor_of_top(ax_order *order, const ax_logits *logits, uint32_t k) {
    int shift = logits->dtype == AX_BF16 ? 0 : 16;
    int32_t lowest = lowest_key(logits->dtype, -INFINITY), floor = INT32_MIN, top = INT32_MIN;
    uint32_t finite = 0;
    if (k > order->num_blocks) return -INFINITY;
    for (uint32_t b = 0; b < order->num_blocks; b++) {
        if (order->block_max[b] < lowest) continue;
        order->bins[(order->block_max[b] >> shift) + 32768][0]++;
        top = order->block_max[b] > top ? order->block_max[b] : top;
        finite++;
    }
    uint32_t seen = 0;
    for (int32_t bin = (top >> shift) + 32768; finite >= k && seen < k; bin--) {
        seen += order->bins[bin][0];
        floor = (int32_t)((uint32_t)(bin - 32768) << shift);
    }
    for (uint32_t b = 0; b < order->num_blocks; b++) {
        if (order->block_max[b] >= lowest) order->bins[(order->block_max[b] >> shift) + 32768][0] = 0;
    }
    return floor >= lowest ? value_of_key(logits->dtype, floor) : -INFINITY;
}

uint32_t ax_order_blocks_above(const ax_order *order, const ax_logits *logits, double cut) {
    int32_t lowest = lowest_key(logits->dtype, cut);
    uint32_t num = 0;
    for (uint32_t b = 0; b < order->num_blocks; b++) num += order->block_max[b] >= lowest;
    return num;
}

/* ---- from a place in the order back to a token ---- */

static uint32_t count_keys(const ax_logits *logits, uint32_t begin, uint32_t end, int32_t low, int32_t high) {
    uint32_t num = 0;
    if (logits->dtype == AX_BF16) {
        const uint16_t *x = logits->data;
        uint16_t a = (uint16_t)key_of_bf16((uint16_t)low), b = (uint16_t)key_of_bf16((uint16_t)high), hits = 0;
        for (uint32_t i = begin; i < end; i++) hits = (uint16_t)(hits + ((x[i] == a) | (x[i] == b)));
        return hits;
    }
    for (uint32_t i = begin; i < end; i++) {
        int32_t key = key_at(logits, i);
        num += key == low || key == high;
    }
    return num;
}

/* What is looked for: unchanged tokens with one of two keys (two for zero's signs; none where no logit can have the
 * value). */
typedef struct target {
    double value;
    int32_t low, high;
    bool raw;
} target;

static target target_of(const ax_logits *logits, double value) {
    int32_t key = key_of_value(logits->dtype, value);
    if (value == 0) return (target){value, -1, 0, true};
    return (target){value, key, key, value_of_key(logits->dtype, key) == value};
}

/* How many tokens of a block have the value. Its changes are those from *c on; *c moves behind them. */
static uint32_t count_block(
    const ax_order *order, const ax_logits *logits, const target *t, uint32_t block, uint32_t *c) {
    const ax_changes *changes = &order->changes;
    uint32_t end = block_end(logits->vocab, block), hits = 0;
    bool raw = t->raw && order->block_max[block] >= t->low;
    if (raw) hits = count_keys(logits, block * AX_BLOCK, end, t->low, t->high);
    for (; *c < changes->num && changes->ids[*c] < end; ++*c) {
        int32_t key = key_at(logits, changes->ids[*c]);
        hits -= raw && (key == t->low || key == t->high);
        hits += changes->values[*c] == t->value;
    }
    return hits;
}

uint32_t ax_order_find(const ax_order *order, const ax_logits *logits, double value, uint32_t rank) {
    const ax_changes *changes = &order->changes;
    const target t = target_of(logits, value);
    uint32_t c = 0;
    for (uint32_t b = 0; b < order->num_blocks; b++) {
        uint32_t first_change = c, hits = count_block(order, logits, &t, b, &c);
        if (rank >= hits) {
            rank -= hits;
            continue;
        }
        c = first_change;
        for (uint32_t i = b * AX_BLOCK; i < block_end(logits->vocab, b); i++) {
            bool changed = c < changes->num && changes->ids[c] == i;
            int32_t key = key_at(logits, i);
            bool match = changed ? changes->values[c] == value : t.raw && (key == t.low || key == t.high);
            c += changed;
            if (match && rank-- == 0) return i;
        }
    }
    return logits->vocab;
}
