/* The head: final norm and vocabulary matrix, one or more rows; of an embedding model, the norm alone. */
#include "model_impl.h"
#include "pool.h"

#define BLOCK 64   /* rows of the matrix per work item */
#define TOKENS 16  /* rows of the input at a time */

typedef struct head_run {
    const emu_model *m;
    const float *normed; /* [tokens][hidden] */
    void *output;
    int tokens;
} head_run;

static void store(const emu_model *m, void *output, size_t at, const float *values, size_t count)
{
    if (m->output_fp32) {
        memcpy((float *)output + at, values, count * sizeof(float));
    } else {
        emu_narrow((uint16_t *)output + at, values, count);
    }
}

static void head_item(void *context, int item, int worker)
{
    const head_run *run = context;
    float logits[TOKENS * BLOCK];
    int vocab = run->m->info.vocab, hidden = run->m->info.hidden, first = item * BLOCK;
    int rows = vocab - first < BLOCK ? vocab - first : BLOCK;
    const emu_matrix matrix = emu_model_matrix(run->m, EMU_W_HEAD, vocab, hidden);
    (void)worker;
    for (int t = 0; t < run->tokens; t += TOKENS) {
        int some = run->tokens - t < TOKENS ? run->tokens - t : TOKENS;
        const float *x = run->normed + (size_t)t * (size_t)hidden;
        emu_matrix_rows(&matrix, first, rows, x, (size_t)hidden, some, logits, BLOCK);
        for (int i = 0; i < some; i++) {
            size_t at = (size_t)(t + i) * (size_t)vocab + (size_t)first;
            store(run->m, run->output, at, logits + (size_t)i * BLOCK, (size_t)rows);
        }
    }
}

int emu_head_run(const emu_model *m, const emu_group *g, const void *input, void *const *out)
{
    size_t hidden = (size_t)m->info.hidden, tokens = (size_t)g->tokens;
    float *normed = emu_scratch_take(tokens * hidden * sizeof(float));
    if (!normed) return -2;
    for (size_t t = 0; t < tokens; t++) {
        float *x = normed + t * hidden;
        emu_widen(x, (const uint16_t *)input + t * hidden, hidden);
        emu_model_norm(m, x, x, EMU_W_NORM, hidden);
    }
    head_run run = {m, normed, out[EMU_HEAD_OUT_OUTPUT], g->tokens};
    if (emu_gives_logits(m->gives)) emu_pool_run(head_item, &run, (m->info.vocab + BLOCK - 1) / BLOCK);
    if (m->gives != EMU_LOGITS) store(m, out[m->info.num_outputs - 1], 0, normed, tokens * hidden);
    emu_scratch_give(normed);
    return g->tokens;
}
