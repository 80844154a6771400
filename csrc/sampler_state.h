/* State of one sequence's sampler; private to sampler.c and sampler_state.c. */
#ifndef AX_SAMPLER_STATE_H
#define AX_SAMPLER_STATE_H

#include "sampler.h"

/* What is known of one token beyond its logit. */
typedef struct ax_sampler_entry {
    uint32_t id;
    uint32_t num_window;    /* occurrences among the latest penalty_window tokens */
    uint32_t num_generated;
    double bias;
} ax_sampler_entry;

struct ax_sampler {
    ax_sampler_params params;
    uint32_t vocab;
    const uint32_t *allowed;
    ax_sampler_entry *entries; /* by id, ascending */
    size_t num_entries, max_entries;
    uint32_t *history;      /* prompt and answer, kept only for a repetition penalty with a window */
    size_t num_history, max_history;
};

#endif
