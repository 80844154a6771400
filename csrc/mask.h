/* Masks of a step: which cache rows and which tokens of its own step each query sees. */
#ifndef AXPRESS_MASK_H
#define AXPRESS_MASK_H

#include <stdint.h>

#define AX_MASK_HIDDEN 0xC780u  /* bf16 of -65536 */
#define AX_MASK_PADDING 0xC700u /* bf16 of -32768 */

/* One token of a step. The planner fills an array of these; the program uploads what it says. */
typedef struct ax_query {
    int32_t token;    /* id, looked up in the embedding */
    int32_t position; /* what RoPE uses */
    int32_t row;      /* cache row that receives its K and V; -1: none */
    int32_t parent;   /* index of the query of this step that it continues, always lower than its own; -1: none */
    int32_t view;     /* which list of visible cache rows it has */
    int32_t logits;   /* slot that receives its logits; -1: none wanted */
} ax_query;

/* Fills the additive bf16 mask of a step, [width, history + width] row-major.
 *
 * Cache rows: `views` has num_views + 1 offsets into `runs`, pairs (start, stop) of visible rows below `history`.
 * Own tokens: a query sees itself, its parent, its parent's parent and so on. Padding (num_queries..width-1) sees only
 * itself, so that its softmax stays finite, by a value that is far above the others and yet hides: softmax does not
 * change when all scores move together, and the emulated card knows by it what need not be computed.
 * Returns 0, or -1 when a query, view or run is out of its range (nothing is written past the mask). */
int ax_mask_fill(uint16_t *mask, int32_t width, int32_t history, const ax_query *queries, int32_t num_queries,
                 const int32_t *runs, const int32_t *views, int32_t num_views);

/* The mask of the same step for layers with a sliding window, from the one that ax_mask_fill made: of what is visible
 * there it leaves the tokens less than `window` positions back. `positions` [history]: of the tokens in the cache's rows;
 * those of rows that nobody sees do not matter. */
void ax_mask_window(uint16_t *windowed, const uint16_t *mask, int32_t width, int32_t history, const ax_query *queries,
                    int32_t num_queries, const int32_t *positions, int32_t window);

#endif
