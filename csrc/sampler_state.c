#include "sampler_state.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef ax_sampler_entry entry;

static const double MAGNITUDE_LIMIT = 1e30;

/* Room for one more element of `size` bytes, by doubling; *array stays valid on failure. */
static bool reserve(void **array, size_t num, size_t *max, size_t size) {
    if (num < *max) return true;
    size_t wanted = *max ? 2 * *max : 64;
    void *bigger = realloc(*array, wanted * size);
    if (!bigger) return false;
    *array = bigger;
    *max = wanted;
    return true;
}

/* The entry of token `id`, made if missing; NULL: out of memory. */
static entry *entry_of(ax_sampler *sampler, uint32_t id) {
    size_t low = 0, high = sampler->num_entries;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sampler->entries[middle].id < id) low = middle + 1;
        else high = middle;
    }
    if (low < sampler->num_entries && sampler->entries[low].id == id) return sampler->entries + low;
    if (!reserve((void **)&sampler->entries, sampler->num_entries, &sampler->max_entries, sizeof(entry))) return NULL;
    memmove(sampler->entries + low + 1, sampler->entries + low, (sampler->num_entries - low) * sizeof(entry));
    sampler->num_entries++;
    sampler->entries[low] = (entry){.id = id};
    return sampler->entries + low;
}

/* Count one token of prompt or answer as the latest. */
static int see(ax_sampler *sampler, uint32_t token, bool generated) {
    const ax_sampler_params *p = &sampler->params;
    bool repetition = p->repetition_penalty != 1, windowed = repetition && p->penalty_window;
    bool counts = generated && (p->presence_penalty != 0 || p->frequency_penalty != 0);
    if (token >= sampler->vocab) return AX_SAMPLER_BAD_ARGUMENT;
    if (!repetition && !counts) return AX_SAMPLER_OK;
    if (windowed && !reserve((void **)&sampler->history, sampler->num_history, &sampler->max_history, sizeof(uint32_t)))
        return AX_SAMPLER_NO_MEMORY;
    entry *e = entry_of(sampler, token);
    if (!e) return AX_SAMPLER_NO_MEMORY;
    e->num_window += repetition;
    e->num_generated += counts;
    if (!windowed) return AX_SAMPLER_OK;
    sampler->history[sampler->num_history++] = token;
    if (sampler->num_history > p->penalty_window) {
        entry_of(sampler, sampler->history[sampler->num_history - 1 - p->penalty_window])->num_window--;
    }
    return AX_SAMPLER_OK;
}

void ax_sampler_allow(ax_sampler *sampler, const uint32_t *words) { sampler->allowed = words; }

int ax_sampler_accept(ax_sampler *sampler, uint32_t token) { return see(sampler, token, true); }

int ax_sampler_reset(ax_sampler *sampler, uint64_t seed, const uint32_t *prompt, size_t num_prompt) {
    size_t kept = 0;
    for (size_t i = 0; i < sampler->num_entries; i++) {
        const entry *e = sampler->entries + i;
        if (e->bias != 0) sampler->entries[kept++] = (entry){.id = e->id, .bias = e->bias};
    }
    sampler->num_entries = kept;
    sampler->num_history = 0;
    sampler->allowed = NULL;
    sampler->params.seed = seed;
    for (size_t i = 0; i < num_prompt; i++) {
        int error = see(sampler, prompt[i], false);
        if (error) return error;
    }
    return AX_SAMPLER_OK;
}

static bool params_valid(const ax_sampler_params *p) {
    return p->temperature >= 0 && p->temperature <= DBL_MAX && p->top_p >= 0 && p->top_p <= 1 && p->min_p >= 0 &&
           p->min_p <= 1 && p->repetition_penalty >= 1 / MAGNITUDE_LIMIT && p->repetition_penalty <= MAGNITUDE_LIMIT &&
           fabs(p->presence_penalty) <= MAGNITUDE_LIMIT && fabs(p->frequency_penalty) <= MAGNITUDE_LIMIT &&
           p->num_logprobs >= -1 && p->num_logprobs <= AX_SAMPLER_MAX_LOGPROBS;
}

static int add_bias(ax_sampler *sampler, uint32_t id, double bias) {
    if (id >= sampler->vocab || !(fabs(bias) <= MAGNITUDE_LIMIT || bias == -INFINITY)) return AX_SAMPLER_BAD_ARGUMENT;
    entry *e = entry_of(sampler, id);
    if (!e) return AX_SAMPLER_NO_MEMORY;
    e->bias = bias;
    return AX_SAMPLER_OK;
}

ax_sampler *ax_sampler_create(
    uint32_t vocab, const ax_sampler_params *params, const uint32_t *prompt, size_t num_prompt, int *error) {
    int ignored;
    if (!error) error = &ignored;
    *error = AX_SAMPLER_BAD_ARGUMENT;
    if (vocab == 0 || !params_valid(params)) return NULL;
    *error = AX_SAMPLER_NO_MEMORY;
    ax_sampler *sampler = calloc(1, sizeof *sampler);
    if (!sampler) return NULL;
    sampler->params = *params;
    sampler->params.bias_ids = NULL; /* the caller's; copied into the entries here */
    sampler->params.bias_values = NULL;
    sampler->vocab = vocab;
    *error = AX_SAMPLER_OK;
    for (uint32_t i = 0; i < params->num_bias && !*error; i++)
        *error = add_bias(sampler, params->bias_ids[i], params->bias_values[i]);
    if (!*error) *error = ax_sampler_reset(sampler, params->seed, prompt, num_prompt);
    if (!*error) return sampler;
    ax_sampler_destroy(sampler);
    return NULL;
}

void ax_sampler_destroy(ax_sampler *sampler) {
    if (!sampler) return;
    free(sampler->entries);
    free(sampler->history);
    free(sampler);
}
