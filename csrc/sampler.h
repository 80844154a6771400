/* From one token's logits to one token, exactly, in float64 and without sorting the vocabulary.
 *
 * Order and meaning of the steps, for each token with its logit l:
 *   1. logit_bias              l += bias (-inf bans the token)
 *   2. repetition penalty r    for tokens among the last `penalty_window` of prompt + answer (0: all): l > 0 ? l / r :
 * l * r
 *   3. presence, frequency     for generated tokens: l -= frequency * times_generated + presence
 *   4. temperature 0           the best token; of equals the lowest id. The steps below do not happen.
 *   5. temperature t           weight = exp((l - best) / t)
 *   6. top_k                   the k best tokens (exactly k: of equals the lowest ids stay)
 *   7. top_p                   of those, the smallest number of best tokens whose weight reaches top_p of theirs;
 *                              at least one
 *   8. min_p                   of those, tokens with at least min_p of the best token's weight
 *   9. draw                    by weight, with one uniform number from Philox4x32-10(key = seed, counter = index)
 * "Best" orders by value, then by lowest id; steps 6 to 8 each keep a prefix of that order.
 *
 * Log-probabilities are those of the model's own distribution: before step 1, temperature 1, natural logarithm.
 */
#ifndef AX_SAMPLER_H
#define AX_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    AX_SAMPLER_OK = 0,
    AX_SAMPLER_INVALID_LOGITS = -1, /* NaN or +inf; out->token is the first such token */
    AX_SAMPLER_NO_TOKEN = -2,       /* every token is -inf, banned or not allowed */
    AX_SAMPLER_NO_MEMORY = -3,
    AX_SAMPLER_BAD_ARGUMENT = -4,
    AX_SAMPLER_CHANGED_LOGITS = -5  /* somebody wrote to the logits during the call */
};
enum { AX_SAMPLER_MAX_LOGPROBS = 20 };

typedef struct ax_sampler_params {
    double temperature;        /* >= 0; 0: greedy */
    double top_p;              /* 0..1; 1: off */
    double min_p;              /* 0..1; 0: off */
    double repetition_penalty; /* 1e-30..1e30; 1: off */
    double presence_penalty;   /* magnitude <= 1e30; 0: off */
    double frequency_penalty;  /* magnitude <= 1e30; 0: off */
    uint32_t top_k;            /* 0: off */
    uint32_t penalty_window;   /* tokens; 0: all */
    int32_t num_logprobs;      /* -1: none; 0..20: the chosen token's and so many best ones' */
    uint32_t num_bias;
    const uint32_t *bias_ids;  /* num_bias different ids; copied */
    const double *bias_values; /* magnitude <= 1e30, or -inf; copied */
    uint64_t seed;
} ax_sampler_params;

typedef struct ax_sample {
    uint32_t token;
    uint32_t num_top;          /* tokens in `top_*`: num_logprobs, or fewer where fewer have a finite logit */
    double logprob;
    uint32_t top_token[AX_SAMPLER_MAX_LOGPROBS]; /* best first */
    double top_logprob[AX_SAMPLER_MAX_LOGPROBS];
} ax_sample;

/* Working memory for one call at a time, shared by all samplers of a thread. About 10 MB of addresses for a
 * vocabulary of 151,936, of which a few hundred KB are touched. */
typedef struct ax_sampler_scratch ax_sampler_scratch;

/* Small state of one sequence: parameters, penalty counts, token history where a window needs it. */
typedef struct ax_sampler ax_sampler;

ax_sampler_scratch *ax_sampler_scratch_create(uint32_t vocab); /* NULL: out of memory or vocab 0 */
void ax_sampler_scratch_destroy(ax_sampler_scratch *scratch);

/* A sampler for `vocab` logits; `prompt` (may be NULL if num_prompt is 0) counts for the repetition penalty.
 * On failure NULL, and *error (may be NULL) is AX_SAMPLER_NO_MEMORY or AX_SAMPLER_BAD_ARGUMENT. */
ax_sampler *ax_sampler_create(
    uint32_t vocab, const ax_sampler_params *params, const uint32_t *prompt, size_t num_prompt, int *error);
void ax_sampler_destroy(ax_sampler *sampler);

/* Start over with another prompt and seed, same parameters. */
int ax_sampler_reset(ax_sampler *sampler, uint64_t seed, const uint32_t *prompt, size_t num_prompt);

/* Choose the token number `index` of the answer. The logits are only read; the sampler does not change (see accept).
 * The result depends on nothing but logits, parameters, seed, index and the accepted tokens. */
int ax_sampler_sample(
    ax_sampler *sampler, ax_sampler_scratch *scratch, const uint16_t *bf16_logits, uint64_t index, ax_sample *out);
int ax_sampler_sample_f32(
    ax_sampler *sampler, ax_sampler_scratch *scratch, const float *logits, uint64_t index, ax_sample *out);

/* The answer goes on with `token`: count it for the penalties. */
int ax_sampler_accept(ax_sampler *sampler, uint32_t token);

/* From now on choose only tokens whose bit is set: bit (token % 32) of words[token / 32]. The memory stays the
 * caller's and is read by every sample; NULL: all tokens. Log-probabilities stay those of the whole vocabulary. */
void ax_sampler_allow(ax_sampler *sampler, const uint32_t *words);

/* The uniform number in [0, 1), a multiple of 2^-53, that draws the token number `index` under `seed`. */
double ax_sampler_uniform(uint64_t seed, uint64_t index);

const char *ax_sampler_strerror(int error);

#ifdef __cplusplus
}
#endif
#endif
