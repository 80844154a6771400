/* The order of one token's logits: distinct values from high to low with their counts, without sorting the vocabulary.
 *
 * bf16 has 65,536 values, so tokens are counted by value; fp32 logits are radix-sorted, and usually only the few that
 * matter. Everything is exact: no value is rounded or dropped. Tokens of one value are ordered by id.
 */
#ifndef AX_LOGITS_H
#define AX_LOGITS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    AX_BLOCK = 64
}; /* tokens per block; each block's best value is kept, so that most blocks are never read again */

typedef enum ax_dtype { AX_BF16 = 0, AX_F32 = 1 } ax_dtype;

/* `vocab` logits at `data`: uint16_t holding bf16, or float. Never written to. */
typedef struct ax_logits {
    const void *data;
    uint32_t vocab;
    ax_dtype dtype;
} ax_logits;

/* Tokens whose logit is not the model's own any more. `ids` ascending; `values` may be -inf (banned), never NaN or
 * +inf. */
typedef struct ax_changes {
    uint32_t num;
    uint32_t *ids;
    double *values;
} ax_changes;

/* Working memory for one vector at a time. Groups are distinct values, descending: `value[g]` is that of `count[g]`
 * tokens. */
typedef struct ax_order {
    uint32_t vocab;
    uint32_t num_blocks;
    int32_t *block_max;    /* per block: key of its best token that is not in `changes` */
    int32_t top_key;       /* key of the best token, in `changes` or not */
    uint32_t (
        *bins)[2]; /* counts by bf16 bit pattern, two counters each against store-forwarding stalls; zero at rest */
    uint64_t *sort_keys[2];
    double *changed_sorted;
    double *raw_value;     /* groups of unchanged tokens only */
    uint32_t *raw_count;
    ax_changes changes;
    double *value;         /* all groups; the raw ones where nothing was changed */
    uint32_t *count;
    double *merged_value;
    uint32_t *merged_count;
    uint32_t num_groups;
    uint32_t num_counted;  /* tokens in all groups */
} ax_order;

/* Memory for vocabularies up to `vocab`; false: out of memory (the order is then empty and may be freed). */
bool ax_order_init(ax_order *order, uint32_t vocab);
void ax_order_free(ax_order *order);

/* After logits that changed under way: forgets counts that nobody collected. */
void ax_order_clear(ax_order *order);

double ax_logit_at(const ax_logits *logits, uint32_t token);

/* Read all logits once: block maxima; `changes` becomes empty. False: a NaN or +inf is among them. */
bool ax_order_scan(ax_order *order, const ax_logits *logits);

/* First token that is NaN or +inf; `vocab` if there is none. */
uint32_t ax_first_invalid(const ax_logits *logits);

/* Take the tokens of `order->changes` out of the block maxima. */
void ax_order_exclude_changes(ax_order *order, const ax_logits *logits);

/* Best value, changes included; -inf if every token is banned. */
double ax_order_best(const ax_order *order, const ax_logits *logits);

/* A value of the logits' type, at or (by a rounding) near `value`; -inf where `value` is below all finite ones. */
double ax_order_representable(const ax_logits *logits, double value);

/* Highest value known to have `k` unchanged tokens at or above it; -inf if the block maxima cannot tell. */
double ax_order_floor_of_top(ax_order *order, const ax_logits *logits, uint32_t k);

/* How many blocks have an unchanged token at or above `cut`. */
uint32_t ax_order_blocks_above(const ax_order *order, const ax_logits *logits, double cut);

/* Form the groups of all tokens with value >= `cut` (representable; -inf: all finite ones). */
void ax_order_count(ax_order *order, const ax_logits *logits, double cut);

/* Id of the token number `rank` (from 0, by id) among those with `value`; `vocab` if there are not as many. */
uint32_t ax_order_find(const ax_order *order, const ax_logits *logits, double value, uint32_t rank);

#endif
