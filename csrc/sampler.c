#include "sampler_state.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "logits.h"

/* Built with -ffp-contract=off (setup.py): no fused multiply-add, so every machine computes the same bits. */

#if defined(__x86_64__) && defined(__GNUC__)
#define AX_AVX2 __attribute__((target("avx2")))
#define AX_HAS_AVX2() __builtin_cpu_supports("avx2")
#endif
#define AX_INLINE static inline __attribute__((always_inline))

enum { UNDECIDED = -1 };

struct ax_sampler_scratch {
    ax_order order;
    void *masked;           /* copy of the logits with tokens that are not allowed at -inf */
    double *weight;         /* per group: exp((value - best) / temperature) */
    double *mass_before;    /* per group, and one more: sum of the weights of all better groups */
    uint32_t *rank_before;  /* per group, and one more: number of tokens in all better groups */
};

/* ---- Philox4x32-10 (Salmon et al., SC 2011) ---- */

double ax_sampler_uniform(uint64_t seed, uint64_t index) {
    uint32_t c[4] = {(uint32_t)index, (uint32_t)(index >> 32), 0, 0};
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {
            (uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ k1, (uint32_t)p0};
        memcpy(c, next, sizeof c);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    uint64_t bits = (uint64_t)c[0] << 32 | c[1];
    return (double)(bits >> 11) * 0x1p-53;
}

/* ---- exp, within 1 ulp and the same on every machine, for arguments from -708 to 0 ---- */

AX_INLINE double exp_in_range(double x) {
    const double shifter = 0x1.8p52, ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
    double shifted = x * 0x1.71547652b82fep0 + shifter; /* x = k ln 2 + r; k in the lowest bits */
    double k = shifted - shifter;
    double r = (x - k * ln2_high) - k * ln2_low;
    double p =
        ((1.0 / 6227020800.0 * r + 1.0 / 479001600) * r + 1.0 / 39916800) * r + 1.0 / 3628800; /* 1/13! ... 1/10! */
    p = (((p * r + 1.0 / 362880) * r + 1.0 / 40320) * r + 1.0 / 5040) * r + 1.0 / 720;
    p = (((p * r + 1.0 / 120) * r + 1.0 / 24) * r + 1.0 / 6) * r +
        1.0 / 2; /* written out: an inner loop would not vectorise */
    double result = 1.0 + (r + r * r * p), power;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023) << 52;
    memcpy(&power, &bits, sizeof power);
    return result * power;
}

/* Below e^-708, where no sum can tell, all weigh alike. Two loops, since gcc would not vectorise them in one. */
AX_INLINE void weigh(const double *value, uint32_t num, double temperature, double *weight) {
    double best = value[0];
    for (size_t g = 0; g < num; g++) {
        double x = (value[g] - best) / temperature;
        weight[g] = x > -708.0 ? x : -708.0;
    }
    for (size_t g = 0; g < num; g++) weight[g] = exp_in_range(weight[g]);
}

#ifdef AX_AVX2
AX_AVX2 static void weigh_avx2(const double *value, uint32_t num, double temperature, double *weight) {
    weigh(value, num, temperature, weight);
}
#endif

/* Weights of the groups, and what lies before each of them. */
static void weigh_groups(ax_sampler_scratch *s, double temperature) {
    const ax_order *order = &s->order;
#ifdef AX_AVX2
    if (AX_HAS_AVX2()) weigh_avx2(order->value, order->num_groups, temperature, s->weight);
    else
#endif
        weigh(order->value, order->num_groups, temperature, s->weight);
    double mass = 0;
    uint32_t rank = 0;
    for (uint32_t g = 0; g < order->num_groups; g++) {
        s->mass_before[g] = mass;
        s->rank_before[g] = rank;
        mass += order->count[g] * s->weight[g];
        rank += order->count[g];
    }
    s->mass_before[order->num_groups] = mass;
    s->rank_before[order->num_groups] = rank;
}

/* ---- places in the order: the first n tokens and their mass ---- */

/* Weight of the best `n` tokens; n is at most the number counted. */
static double mass_of(const ax_sampler_scratch *s, uint32_t n) {
    uint32_t low = 0, high = s->order.num_groups;
    while (low < high) { /* the first group that ends at or after n */
        uint32_t middle = low + (high - low) / 2;
        if (s->rank_before[middle + 1] < n) low = middle + 1;
        else high = middle;
    }
    return s->mass_before[low] + (n - s->rank_before[low]) * s->weight[low];
}

/* How many tokens are better than the first one with which the mass reaches `target` (or passes it, if `beyond`). */
static uint32_t rank_at(const ax_sampler_scratch *s, double target, bool beyond) {
    uint32_t low = 0, high = s->order.num_groups - 1;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        double mass = s->mass_before[middle + 1];
        if (beyond ? mass <= target : mass < target) low = middle + 1;
        else high = middle;
    }
    uint32_t group = low, first = 1, last = s->order.count[group];
    while (first < last) { /* number of the group's tokens that it takes */
        uint32_t middle = first + (last - first) / 2;
        double mass = s->mass_before[group] + middle * s->weight[group];
        if (beyond ? mass <= target : mass < target) first = middle + 1;
        else last = middle;
    }
    return s->rank_before[group] + first - 1;
}

static uint32_t num_with_weight(const ax_sampler_scratch *s, double least) {
    uint32_t low = 0, high = s->order.num_groups;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->weight[middle] >= least) low = middle + 1;
        else high = middle;
    }
    return s->rank_before[low];
}

/* Rank of the drawn token if the `num_tail` tokens that were not counted weigh `tail` together; UNDECIDED if it is
 * one of those. Never falls as `tail` grows. */
static int64_t draw(
    const ax_sampler_scratch *s, const ax_sampler_params *params, uint32_t num_tail, double tail, double uniform) {
    uint32_t counted = s->order.num_counted, keep = counted + num_tail;
    double counted_mass = s->mass_before[s->order.num_groups];
    if (params->top_k && params->top_k < keep) keep = params->top_k;
    double mass = keep > counted ? counted_mass + tail : mass_of(s, keep);
    if (params->top_p < 1) {
        double target = params->top_p * mass;
        if (target > counted_mass) return UNDECIDED;
        uint32_t n = rank_at(s, target, false) + 1;
        keep = n < keep ? n : keep;
    }
    if (params->min_p > 0) {
        uint32_t n = num_with_weight(s, params->min_p);
        if (n < counted && n < keep) keep = n;
    }
    mass = keep > counted ? counted_mass + tail : mass_of(s, keep);
    double target = uniform * mass;
    if (num_tail && target >= counted_mass) return UNDECIDED;
    uint32_t rank = rank_at(s, target, true);
    return rank < keep ? rank : keep - 1;
}

/* ---- from changed logits to a token ---- */

static uint32_t token_of_rank(const ax_sampler_scratch *s, const ax_logits *logits, uint32_t rank) {
    uint32_t low = 0, high = s->order.num_groups;
    while (low + 1 < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->rank_before[middle] <= rank) low = middle;
        else high = middle;
    }
    return ax_order_find(&s->order, logits, s->order.value[low], rank - s->rank_before[low]);
}

/* Where to stop counting at first. 20 temperatures below the best, a token weighs 2e-9: all others together almost
 * never decide anything (and where they might, everything is counted). With top_k, the k best are enough. */
static double first_cut(ax_order *order, const ax_logits *logits, const ax_sampler_params *params, double best) {
    double cut = ax_order_representable(logits, best - 20 * params->temperature);
    if (params->top_k) {
        double floor = ax_order_floor_of_top(order, logits, params->top_k);
        cut = floor > cut ? floor : cut;
    }
    if (cut > best) cut = best;
    /* Where tokens above the cut are everywhere, counting all bf16 values at once is quicker; sorting all floats is
     * not. */
    bool dense = logits->dtype == AX_BF16 && 2 * ax_order_blocks_above(order, logits, cut) > order->num_blocks;
    return dense ? -INFINITY : cut;
}

/* The draw among the counted tokens, counting from the best down to a cut. What lies below the cut is known only as
 * "between nothing and so much"; if both ends of that lead to the same token, so does the truth, else everything is
 * counted. */
static uint32_t draw_token(
    ax_sampler_scratch *s, const ax_logits *logits, const ax_sampler_params *params, double best, double uniform) {
    double cut = first_cut(&s->order, logits, params, best);
    if (cut > -INFINITY) {
        ax_order_count(&s->order, logits, cut);
        if (s->order.num_groups && s->order.value[0] == best) {
            weigh_groups(s, params->temperature);
            uint32_t num_tail = logits->vocab - s->order.num_counted;
            double most = num_tail * exp((cut - best) / params->temperature) * (1 + 1e-6) + 1e-300;
            int64_t rank = draw(s, params, num_tail, 0, uniform);
            if (rank != UNDECIDED && rank == draw(s, params, num_tail, most, uniform))
                return token_of_rank(s, logits, (uint32_t)rank);
        }
    }
    ax_order_count(&s->order, logits, -INFINITY);
    if (s->order.num_groups == 0) return logits->vocab; /* they changed: the best one is gone */
    weigh_groups(s, params->temperature);
    return token_of_rank(s, logits, (uint32_t)draw(s, params, 0, 0, uniform));
}

/* List the tokens whose logit bias and penalties really change. False: a changed logit is not a number or +inf. */
static bool list_changes(const ax_sampler *sampler, ax_order *order, const ax_logits *logits) {
    const ax_sampler_params *p = &sampler->params;
    ax_changes *changes = &order->changes;
    changes->num = 0;
    for (size_t i = 0; i < sampler->num_entries; i++) {
        const ax_sampler_entry *e = sampler->entries + i;
        double original = ax_logit_at(logits, e->id), value = original + e->bias;
        if (e->num_window) value = value > 0 ? value / p->repetition_penalty : value * p->repetition_penalty;
        if (e->num_generated) value -= p->frequency_penalty * e->num_generated + p->presence_penalty;
        if (value == original) continue;
        if (isnan(value) || value == INFINITY) return false;
        changes->ids[changes->num] = e->id;
        changes->values[changes->num++] = value;
    }
    if (changes->num) ax_order_exclude_changes(order, logits);
    return true;
}

/* Copy `num` logits, up to 16; those whose bit in `allowed` is not set become -inf. No branches, for masks may look
 * random. */
AX_INLINE void mask_bf16(uint16_t *to, const uint16_t *from, uint32_t allowed, uint32_t num) {
    static const uint16_t bit[16] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    uint16_t half = (uint16_t)allowed;
    for (uint32_t i = 0; i < num; i++) {
        uint16_t keep = (half & bit[i]) == bit[i] ? 0xffff : 0;
        to[i] = (uint16_t)((from[i] & keep) | (0xff80 & ~keep));
    }
}

AX_INLINE void mask_f32(float *to, const float *from, uint32_t allowed, uint32_t num) {
    for (uint32_t i = 0; i < num; i++) to[i] = allowed & (1u << i) ? from[i] : -INFINITY;
}

/* Replace `logits` by a copy in which tokens that are not allowed are -inf. */
static void apply_allowed(ax_sampler_scratch *s, ax_logits *logits, const uint32_t *allowed) {
    for (uint32_t i = 0; i < logits->vocab; i += 16) {
        uint32_t bits = allowed[i / 32] >> i % 32 & 0xffff, rest = logits->vocab - i;
        if (logits->dtype == AX_F32)
            mask_f32((float *)s->masked + i, (const float *)logits->data + i, bits, rest < 16 ? rest : 16);
        else if (rest >= 16)
            mask_bf16((uint16_t *)s->masked + i, (const uint16_t *)logits->data + i, bits, 16); /* vectorises */
        else mask_bf16((uint16_t *)s->masked + i, (const uint16_t *)logits->data + i, bits, rest);
    }
    logits->data = s->masked;
    ax_order_scan(&s->order, logits);
}

/* ---- log-probabilities of the model's own distribution ---- */

typedef struct normaliser {
    double best, log_mass; /* log-probability of a logit l: (l - best) - log_mass */
} normaliser;

/* Needs a scanned order without changes. Lists the best tokens in `out`. */
static normaliser normalise(ax_sampler_scratch *s, const ax_logits *logits, uint32_t num_top, ax_sample *out) {
    const ax_order *order = &s->order;
    ax_order_count(&s->order, logits, -INFINITY);
    if (order->num_groups == 0) return (normaliser){0, 0};
    weigh_groups(s, 1.0);
    normaliser n = {order->value[0], log(s->mass_before[order->num_groups])};
    num_top = num_top < order->num_counted ? num_top : order->num_counted;
    for (uint32_t g = 0, i = 0; out->num_top < num_top; i++) {
        if (i == order->count[g]) g++, i = 0;
        out->top_token[out->num_top] = ax_order_find(order, logits, order->value[g], i);
        out->top_logprob[out->num_top++] = (order->value[g] - n.best) - n.log_mass;
    }
    return n;
}

/* ---- one token ---- */

static int sample(ax_sampler *sampler, ax_sampler_scratch *s, ax_logits logits, uint64_t index, ax_sample *out) {
    if (s->order.vocab != logits.vocab) return AX_SAMPLER_BAD_ARGUMENT;
    const ax_logits raw = logits;
    normaliser n = {0, 0};
    out->num_top = 0;
    out->logprob = 0;
    if (!ax_order_scan(&s->order, &logits)) {
        out->token = ax_first_invalid(&logits);
        return AX_SAMPLER_INVALID_LOGITS;
    }
    if (sampler->params.num_logprobs >= 0) n = normalise(s, &raw, (uint32_t)sampler->params.num_logprobs, out);
    if (sampler->allowed) apply_allowed(s, &logits, sampler->allowed);
    if (!list_changes(sampler, &s->order, &logits)) return AX_SAMPLER_BAD_ARGUMENT;
    double best = ax_order_best(&s->order, &logits);
    if (best == -INFINITY) return AX_SAMPLER_NO_TOKEN;
    if (sampler->params.temperature == 0) out->token = ax_order_find(&s->order, &logits, best, 0);
    else out->token = draw_token(s, &logits, &sampler->params, best, ax_sampler_uniform(sampler->params.seed, index));
    if (out->token >= logits.vocab) { /* counted, but not found again */
        ax_order_clear(&s->order);
        return AX_SAMPLER_CHANGED_LOGITS;
    }
    if (sampler->params.num_logprobs >= 0) out->logprob = (ax_logit_at(&raw, out->token) - n.best) - n.log_mass;
    return AX_SAMPLER_OK;
}

int ax_sampler_sample(
    ax_sampler *sampler, ax_sampler_scratch *scratch, const uint16_t *bf16_logits, uint64_t index, ax_sample *out) {
    return sample(sampler, scratch, (ax_logits){bf16_logits, sampler->vocab, AX_BF16}, index, out);
}

int ax_sampler_sample_f32(
    ax_sampler *sampler, ax_sampler_scratch *scratch, const float *logits, uint64_t index, ax_sample *out) {
    return sample(sampler, scratch, (ax_logits){logits, sampler->vocab, AX_F32}, index, out);
}

const char *ax_sampler_strerror(int error) {
    switch (error) {
    case AX_SAMPLER_OK: return "no error";
    case AX_SAMPLER_INVALID_LOGITS: return "the logits contain NaN or +inf";
    case AX_SAMPLER_NO_TOKEN: return "every token is at -inf, banned or not allowed";
    case AX_SAMPLER_NO_MEMORY: return "out of memory";
    case AX_SAMPLER_CHANGED_LOGITS: return "the logits changed while they were read";
    case AX_SAMPLER_BAD_ARGUMENT: return "an argument is out of range";
    default: return "unknown error of the sampler";
    }
}

/* ---- scratch ---- */

ax_sampler_scratch *ax_sampler_scratch_create(uint32_t vocab) {
    if (vocab == 0) return NULL;
    ax_sampler_scratch *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    bool ok = ax_order_init(&s->order, vocab);
    s->masked = malloc(vocab * sizeof(float));
    s->weight = malloc(vocab * sizeof *s->weight);
    s->mass_before = malloc(((size_t)vocab + 1) * sizeof *s->mass_before);
    s->rank_before = malloc(((size_t)vocab + 1) * sizeof *s->rank_before);
    if (ok && s->masked && s->weight && s->mass_before && s->rank_before) return s;
    ax_sampler_scratch_destroy(s);
    return NULL;
}

void ax_sampler_scratch_destroy(ax_sampler_scratch *s) {
    if (!s) return;
    ax_order_free(&s->order);
    free(s->masked);
    free(s->weight);
    free(s->mass_before);
    free(s->rank_before);
    free(s);
}
