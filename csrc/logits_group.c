#include <string.h>

#include "logits_key.h"

/* Every token of the vector, whatever its value: about one token per clock cycle. */
static void tally_all(ax_order *order, const uint16_t *x, uint32_t vocab) {
    uint32_t(*bins)[2] = order->bins;
    uint32_t i = 0;
    for (; i + 4 <= vocab; i += 4) {
        uint64_t four; /* one load instead of four, which compete with those of the counters */
        memcpy(&four, x + i, sizeof four);
        uint16_t a = (uint16_t)four, b = (uint16_t)(four >> 16), c = (uint16_t)(four >> 32), d = (uint16_t)(four >> 48);
        bins[a][0]++;
        bins[b][1]++;
        bins[c][0]++;
        bins[d][1]++;
    }
    for (; i < vocab; i++) bins[x[i]][0]++;
}

/* Only blocks with a token that counts; lower tokens of those blocks are counted too and dropped by the caller. */
static void tally_above(ax_order *order, const uint16_t *x, uint32_t vocab, int32_t lowest) {
    for (uint32_t b = 0; b < order->num_blocks; b++) {
        if (order->block_max[b] < lowest) continue;
        for (uint32_t i = b * AX_BLOCK; i < block_end(vocab, b); i++) {
            if (key_of_bf16(x[i]) < lowest) continue;
            order->bins[x[i]][i & 1]++;
        }
    }
}

/* Add one bin to the groups and clear it; `joins` adds to the last group (-0 joins +0). */
AX_INLINE void take_bin(ax_order *order, uint32_t bits, bool joins) {
    uint32_t *bin = order->bins[bits];
    uint32_t count = bin[0] + bin[1];
    memset(bin, 0, sizeof order->bins[0]);
    if (count == 0) return;
    if (joins) {
        order->raw_count[order->num_groups - 1] += count;
        return;
    }
    order->raw_value[order->num_groups] = value_of_bits(bits << 16);
    order->raw_count[order->num_groups++] = count;
}

/* Whether any of 32 bins is in use. Vectorises; most bins are those of tiny numbers, and empty. */
AX_INLINE bool run_in_use(const ax_order *order, uint32_t first_bits) {
    uint64_t any = 0, pair;
    for (int i = 0; i < 32; i++) {
        memcpy(&pair, order->bins[first_bits + i], sizeof pair);
        any |= pair;
    }
    return any;
}

/* Bins to groups, high to low, down to the key `lowest`: positive patterns downwards, then negative ones upwards.
 * Clears the bins. */
static void gather_bins(ax_order *order, int32_t lowest) {
    static const uint32_t minus_zero = 0x8000;
    uint32_t first_positive = lowest > 0 ? (uint32_t)lowest : 0;
    uint32_t last_negative = lowest < 0 ? (uint16_t)key_of_bf16((uint16_t)lowest) : 0;
    order->num_groups = 0;
    for (int32_t run = order->top_key >> 5; run >= (int32_t)(first_positive >> 5); run--) {
        if (!run_in_use(order, (uint32_t)run << 5)) continue;
        for (int i = 31; i >= 0; i--) take_bin(order, ((uint32_t)run << 5) + (uint32_t)i, false);
    }
    bool had_zero = order->num_groups && order->raw_value[order->num_groups - 1] == 0;
    for (uint32_t first = minus_zero; first <= last_negative; first += 32) {
        if (!run_in_use(order, first)) continue;
        for (uint32_t i = first; i < first + 32; i++) take_bin(order, i, had_zero && i == minus_zero);
    }
}

static void group_bf16(ax_order *order, const ax_logits *logits, double cut, int32_t lowest) {
    const uint16_t *x = logits->data;
    const int32_t minus_infinity = lowest_key(AX_BF16, -INFINITY) - 1;
    bool all = 2 * ax_order_blocks_above(order, logits, cut) > order->num_blocks;
    if (all) tally_all(order, x, logits->vocab);
    else tally_above(order, x, logits->vocab, lowest);
    for (uint32_t c = 0; c < order->changes.num; c++) {
        uint32_t block = order->changes.ids[c] / AX_BLOCK, bits = x[order->changes.ids[c]];
        bool counted = all || (key_of_bf16((uint16_t)bits) >= lowest && order->block_max[block] >= lowest);
        if (counted) order->bins[bits][0]--; /* the two counters add up modulo 2^32 */
    }
    gather_bins(order, all ? minus_infinity : lowest);
    while (order->num_groups && !(order->raw_value[order->num_groups - 1] >= cut)) order->num_groups--;
    if (cut == -INFINITY && order->num_groups && order->raw_value[order->num_groups - 1] == cut) order->num_groups--;
}

/* Stable sort by the upper 32 bits, three passes of 11 bits; the result is in sort_keys[1]. */
static void radix_sort(ax_order *order, uint32_t num) {
    for (int pass = 0; pass < 3; pass++) {
        uint64_t *from = order->sort_keys[pass % 2], *to = order->sort_keys[(pass + 1) % 2];
        int shift = 32 + 11 * pass;
        uint32_t start[2048] = {0}, sum = 0;
        for (uint32_t i = 0; i < num; i++) start[(from[i] >> shift) & 2047]++;
        for (int d = 0; d < 2048; d++) {
            uint32_t n = start[d];
            start[d] = sum;
            sum += n;
        }
        for (uint32_t i = 0; i < num; i++) to[start[(from[i] >> shift) & 2047]++] = from[i];
    }
}

static void group_f32(ax_order *order, const ax_logits *logits, int32_t lowest) {
    uint32_t num = 0, c = 0;
    for (uint32_t b = 0; b < order->num_blocks; b++) {
        if (order->block_max[b] < lowest) continue;
        for (uint32_t i = b * AX_BLOCK; i < block_end(logits->vocab, b); i++) {
            int32_t key = key_at(logits, i);
            if (key < lowest) continue;
            while (c < order->changes.num && order->changes.ids[c] < i) c++;
            if (c < order->changes.num && order->changes.ids[c] == i) continue;
            if (key == -1) key = 0; /* -0 equals +0 */
            order->sort_keys[0][num++] = (uint64_t)(0x7fffffffu - (uint32_t)key) << 32;
        }
    }
    radix_sort(order, num);
    order->num_groups = 0;
    for (uint32_t i = 0; i < num; i++) {
        const uint64_t *key = order->sort_keys[1] + i;
        if (i && key[0] == key[-1]) {
            order->raw_count[order->num_groups - 1]++;
            continue;
        }
        order->raw_value[order->num_groups] = value_of_key(AX_F32, (int32_t)(0x7fffffffu - (uint32_t)(*key >> 32)));
        order->raw_count[order->num_groups++] = 1;
    }
}

/* Shell sort, descending; libc's qsort may allocate. */
static void sort_descending(double *values, uint32_t num) {
    uint32_t gap = 1;
    while (gap < num / 3) gap = gap * 3 + 1;
    for (; gap > 0; gap /= 3) {
        for (uint32_t i = gap; i < num; i++) {
            double value = values[i];
            uint32_t j = i;
            for (; j >= gap && values[j - gap] < value; j -= gap) values[j] = values[j - gap];
            values[j] = value;
        }
    }
}

/* The changed values at or above `cut`, descending: sorted as floats first, which leaves little to do. Returns their
 * number. */
static uint32_t sort_changes(ax_order *order, double cut) {
    uint32_t num = 0;
    for (uint32_t i = 0; i < order->changes.num; i++) {
        double value = order->changes.values[i];
        if (!(value >= cut && value > -INFINITY)) continue;
        order->sort_keys[0][num++] = (uint64_t)(0x7fffffffu - (uint32_t)key_of_value(AX_F32, value)) << 32 | i;
    }
    if (num > 64) radix_sort(order, num);
    const uint64_t *sorted = order->sort_keys[num > 64];
    for (uint32_t i = 0; i < num; i++) order->changed_sorted[i] = order->changes.values[(uint32_t)sorted[i]];
    sort_descending(order->changed_sorted, num);
    return num;
}

static void append_group(ax_order *order, double value, uint32_t count) {
    if (order->num_groups && order->merged_value[order->num_groups - 1] == value) {
        order->merged_count[order->num_groups - 1] += count;
        return;
    }
    order->merged_value[order->num_groups] = value;
    order->merged_count[order->num_groups++] = count;
}

/* Groups of unchanged tokens and the changed tokens at or above `cut`, into one descending list. */
static void merge_changes(ax_order *order, double cut) {
    uint32_t num = sort_changes(order, cut), num_raw = order->num_groups, c = 0;
    order->num_groups = 0;
    for (uint32_t g = 0; g < num_raw; g++) {
        while (c < num && order->changed_sorted[c] > order->raw_value[g])
            append_group(order, order->changed_sorted[c++], 1);
        append_group(order, order->raw_value[g], order->raw_count[g]);
    }
    while (c < num) append_group(order, order->changed_sorted[c++], 1);
    order->value = order->merged_value;
    order->count = order->merged_count;
}

void ax_order_count(ax_order *order, const ax_logits *logits, double cut) {
    int32_t lowest = lowest_key(logits->dtype, cut);
    if (logits->dtype == AX_BF16) group_bf16(order, logits, cut, lowest);
    else group_f32(order, logits, lowest);
    order->value = order->raw_value;
    order->count = order->raw_count;
    if (order->changes.num) merge_changes(order, cut);
    order->num_counted = 0;
    for (uint32_t g = 0; g < order->num_groups; g++) order->num_counted += order->count[g];
}
