/* The sampler's C code under sanitizers: exact-size buffers, all vocabularies from 1 to 200, all parameters, failing
 * allocators. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sampler.h"

#define CHECK(condition)                                                              \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            exit(1);                                                                  \
        }                                                                             \
    } while (0)

/* ---- allocators that fail at the n-th call ---- */

static long allocations_left = -1; /* -1: never fail */

static int may_allocate(void) { return allocations_left < 0 || allocations_left-- > 0; }

void *__real_malloc(size_t size);
void *__real_calloc(size_t num, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t num, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size) { return may_allocate() ? __real_malloc(size) : NULL; }
void *__wrap_calloc(size_t num, size_t size) { return may_allocate() ? __real_calloc(num, size) : NULL; }
void *__wrap_realloc(void *old, size_t size) { return may_allocate() ? __real_realloc(old, size) : NULL; }

/* ---- random cases ---- */

static uint64_t state = 88172645463325252u;

static uint32_t below(uint32_t limit) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % limit;
}

static uint16_t finite_bf16(void) {
    for (;;) {
        uint16_t bits = (uint16_t)below(65536);
        if ((bits & 0x7fff) < 0x7f80) return below(4) ? bits : (uint16_t)(0x4000 + below(3));
    }
}

static ax_sampler_params random_params(void) {
    static const double temperatures[] = {0, 1e-300, 0.7, 1, 1e300};
    return (ax_sampler_params){
        .temperature = temperatures[below(5)],
        .top_p = below(2) ? 1 : below(1001) / 1000.0,
        .min_p = below(2) ? 0 : below(1001) / 1000.0,
        .repetition_penalty = below(2) ? 1 : 1e-30 + below(300) / 100.0,
        .presence_penalty = below(2) ? 0 : below(200) / 50.0 - 2,
        .frequency_penalty = below(2) ? 0 : below(200) / 50.0 - 2,
        .top_k = below(2) ? 0 : below(250),
        .penalty_window = below(2) ? 0 : 1 + below(10),
        .num_logprobs = (int32_t)below(22) - 1,
        .seed = (uint64_t)below(1u << 31) << 32 | below(1u << 31),
    };
}

static void check_sample(int error, const ax_sample *out, const ax_sampler_params *params, uint32_t vocab) {
    CHECK(error == AX_SAMPLER_OK);
    CHECK(out->token < vocab);
    if (params->num_logprobs < 0) return;
    CHECK(out->logprob <= 0);
    CHECK(out->num_top == (vocab < (uint32_t)params->num_logprobs ? vocab : (uint32_t)params->num_logprobs));
    for (uint32_t i = 0; i < out->num_top; i++) {
        CHECK(out->top_token[i] < vocab);
        CHECK(i == 0 || out->top_logprob[i] <= out->top_logprob[i - 1]);
    }
}

/* bf16 logits and the same as float must give the same token, by two ways through the code. */
static void one_sequence(uint32_t vocab, ax_sampler_scratch *scratch) {
    uint16_t *logits = malloc(vocab * sizeof *logits);
    uint32_t *bits = malloc(vocab * sizeof *bits), prompt[5];
    float *floats = malloc(vocab * sizeof *floats);
    ax_sampler_params params = random_params();
    uint32_t bias_id = below(vocab);
    double bias = below(200) / 10.0 - 10;
    params.num_bias = below(2);
    params.bias_ids = &bias_id;
    params.bias_values = &bias;
    for (int i = 0; i < 5; i++) prompt[i] = below(vocab);
    ax_sampler *sampler = ax_sampler_create(vocab, &params, prompt, 5, NULL);
    CHECK(sampler);
    for (uint64_t index = 0; index < 20; index++) {
        for (uint32_t i = 0; i < vocab; i++) {
            logits[i] = finite_bf16();
            bits[i] = (uint32_t)logits[i] << 16;
        }
        memcpy(floats, bits, vocab * sizeof *floats);
        ax_sample out, other;
        check_sample(ax_sampler_sample(sampler, scratch, logits, index, &out), &out, &params, vocab);
        check_sample(ax_sampler_sample_f32(sampler, scratch, floats, index, &other), &other, &params, vocab);
        CHECK(out.token == other.token && out.num_top == other.num_top && out.logprob == other.logprob);
        CHECK(memcmp(out.top_token, other.top_token, out.num_top * sizeof *out.top_token) == 0);
        CHECK(ax_sampler_accept(sampler, below(3) ? out.token : below(vocab)) == AX_SAMPLER_OK);
        if (index == 12) CHECK(ax_sampler_reset(sampler, index, prompt, 3) == AX_SAMPLER_OK);
    }
    CHECK(ax_sampler_accept(sampler, vocab) == AX_SAMPLER_BAD_ARGUMENT);
    ax_sampler_destroy(sampler);
    free(logits);
    free(bits);
    free(floats);
}

/* A reset sampler is as new: same tokens as one made for that prompt and seed. */
static void reset_is_like_new(void) {
    enum { VOCAB = 50 };
    uint16_t logits[VOCAB];
    uint32_t prompt[] = {1, 2, 3, 2}, other_prompt[] = {7, 7, 9};
    ax_sampler_params params = {.temperature = 1,
        .top_p = 1,
        .repetition_penalty = 1.5,
        .frequency_penalty = 0.5,
        .penalty_window = 3,
        .num_logprobs = -1,
        .seed = 5};
    ax_sampler_scratch *scratch = ax_sampler_scratch_create(VOCAB);
    ax_sampler *used = ax_sampler_create(VOCAB, &params, other_prompt, 3, NULL), *fresh;
    for (int i = 0; i < VOCAB; i++) logits[i] = (uint16_t)(0x3f80 + below(128));
    for (uint32_t i = 0; i < 30; i++) CHECK(ax_sampler_accept(used, i) == AX_SAMPLER_OK);
    params.seed = 77;
    fresh = ax_sampler_create(VOCAB, &params, prompt, 4, NULL);
    CHECK(ax_sampler_reset(used, 77, prompt, 4) == AX_SAMPLER_OK);
    for (uint64_t i = 0; i < 200; i++) {
        ax_sample a, b;
        CHECK(ax_sampler_sample(used, scratch, logits, i, &a) == AX_SAMPLER_OK);
        CHECK(ax_sampler_sample(fresh, scratch, logits, i, &b) == AX_SAMPLER_OK);
        CHECK(a.token == b.token);
        CHECK(ax_sampler_accept(used, a.token) == AX_SAMPLER_OK && ax_sampler_accept(fresh, a.token) == AX_SAMPLER_OK);
    }
    ax_sampler_destroy(used);
    ax_sampler_destroy(fresh);
    ax_sampler_scratch_destroy(scratch);
}

static void memory_runs_out(void) {
    uint32_t prompt[300];
    int error = 0, failures = 0;
    ax_sampler_params params = {
        .temperature = 1, .top_p = 1, .repetition_penalty = 2, .penalty_window = 7, .num_logprobs = -1};
    for (uint32_t i = 0; i < 300; i++) prompt[i] = i;
    for (long n = 0;; n++, failures++) {
        allocations_left = n;
        ax_sampler *sampler = ax_sampler_create(300, &params, prompt, 300, &error);
        allocations_left = -1;
        if (!sampler) {
            CHECK(error == AX_SAMPLER_NO_MEMORY);
            continue;
        }
        allocations_left = 0;
        while (!(error = ax_sampler_accept(sampler, 3))) continue;
        allocations_left = -1;
        CHECK(error == AX_SAMPLER_NO_MEMORY);
        CHECK(ax_sampler_accept(sampler, 3) == AX_SAMPLER_OK);
        ax_sampler_destroy(sampler);
        break;
    }
    CHECK(failures >= 5);
    for (long n = 0;; n++) {
        allocations_left = n;
        ax_sampler_scratch *scratch = ax_sampler_scratch_create(100);
        allocations_left = -1;
        CHECK(scratch || n < 20);
        if (!scratch) continue;
        CHECK(n >= 10);
        ax_sampler_scratch_destroy(scratch);
        break;
    }
}

static void arguments_are_checked(void) {
    const ax_sampler_params good = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .num_logprobs = -1};
    uint32_t id = 5;
    double value = NAN;
    int error = 0;
    ax_sampler_params p = good;
    p.temperature = NAN;
    CHECK(!ax_sampler_create(5, &p, NULL, 0, &error) && error == AX_SAMPLER_BAD_ARGUMENT);
    p = good, p.repetition_penalty = 0;
    CHECK(!ax_sampler_create(5, &p, NULL, 0, NULL));
    p = good, p.num_logprobs = 21;
    CHECK(!ax_sampler_create(5, &p, NULL, 0, NULL));
    p = good, p.num_bias = 1, p.bias_ids = &id, p.bias_values = &value;
    CHECK(!ax_sampler_create(5, &p, NULL, 0, NULL) && !ax_sampler_create(6, &p, NULL, 0, NULL));
    CHECK(!ax_sampler_create(5, &good, &id, 1, NULL) && !ax_sampler_create(0, &good, NULL, 0, NULL));
    CHECK(!ax_sampler_scratch_create(0));
    ax_sampler *sampler = ax_sampler_create(5, &good, NULL, 0, &error);
    ax_sampler_scratch *scratch = ax_sampler_scratch_create(6);
    uint16_t logits[6] = {0};
    ax_sample out;
    CHECK(sampler && scratch && error == AX_SAMPLER_OK);
    CHECK(ax_sampler_sample(sampler, scratch, logits, 0, &out) == AX_SAMPLER_BAD_ARGUMENT);
    ax_sampler_scratch_destroy(scratch);
    ax_sampler_destroy(sampler);
}

/* ---- logits that somebody overwrites during the call ---- */

enum { CHANGING = 96 };

static void *overwrite(void *arg) {
    volatile uint16_t *logits = arg;
    for (uint32_t round = 0; logits[CHANGING] == 0; round++)
        for (int i = 0; i < CHANGING; i++) logits[i] = round % 2 ? 0xff80 : 0x3f80; /* -inf, 1 */
    return NULL;
}

/* Whatever it says, it stays within its memory, and afterwards the scratch is as good as new. */
static void changing_logits(void) {
    const ax_sampler_params params = {.temperature = 1, .top_p = 0.9, .repetition_penalty = 1, .num_logprobs = 3};
    ax_sampler *sampler = ax_sampler_create(CHANGING, &params, NULL, 0, NULL);
    ax_sampler_scratch *scratch = ax_sampler_scratch_create(CHANGING), *fresh = ax_sampler_scratch_create(CHANGING);
    uint16_t *logits = calloc(CHANGING + 1, sizeof *logits), still[CHANGING];
    ax_sample out, expected;
    pthread_t thread;
    CHECK(sampler && scratch && fresh && logits && pthread_create(&thread, NULL, overwrite, logits) == 0);
    for (uint64_t i = 0; i < 3000; i++) {
        int error = ax_sampler_sample(sampler, scratch, logits, i, &out);
        CHECK(error != AX_SAMPLER_OK || out.token < CHANGING);
    }
    ((volatile uint16_t *)logits)[CHANGING] = 1;
    pthread_join(thread, NULL);
    for (int i = 0; i < CHANGING; i++) still[i] = (uint16_t)(0x3f00 + i);
    CHECK(ax_sampler_sample(sampler, scratch, still, 5, &out) == AX_SAMPLER_OK);
    CHECK(ax_sampler_sample(sampler, fresh, still, 5, &expected) == AX_SAMPLER_OK && out.token == expected.token);
    free(logits);
    ax_sampler_scratch_destroy(fresh);
    ax_sampler_scratch_destroy(scratch);
    ax_sampler_destroy(sampler);
}

int main(void) {
    for (uint32_t vocab = 1; vocab <= 200; vocab++) {
        ax_sampler_scratch *scratch = ax_sampler_scratch_create(vocab);
        for (int i = 0; i < 4; i++) one_sequence(vocab, scratch);
        ax_sampler_scratch_destroy(scratch);
    }
    reset_is_like_new();
    memory_runs_out();
    arguments_are_checked();
    changing_logits();
    puts("ok");
    return 0;
}
