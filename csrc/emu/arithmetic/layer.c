/* One layer, with attention or a recurrence: decode (one token) or a chunk. Everything is computed before any output is
 * written, so outputs may alias inputs.
 *
 * A token's numbers never depend on its neighbours: each phase works per token, or (matrix products) on canonical dot
 * products.
 */
#include <math.h>

#include "attention.h"
#include "model_impl.h"
#include "pool.h"
#include "recurrent.h"

/* query elements times visible rows from which attention is worth waking other threads */
#define SHARE_FROM (32 * 1024)

typedef struct layer_run {
    const emu_model *m;
    int chunk, tokens, rows;              /* the group's width, and how many of its first tokens are computed */
    size_t hidden, width, kv_width, ffn;  /* width: heads * head_dim, of a recurrent layer value heads * value_dim */
    size_t projected;                     /* of a token: q, k, v and what else the input is multiplied to */
    const uint16_t *input;
    uint16_t *output;
    const uint32_t *positions;
    float *x;         /* [T][hidden] the residual stream */
    float *normed;    /* [T][hidden] input of the next matrix product */
    float *wide;      /* [T][projected | 2 ffn] its output */
    float *attended;  /* [T][width] */
    float *back;      /* [T][hidden] output of o and down */
    uint16_t *k, *v;  /* [T][kv_width] */
    const uint16_t *mask;
    emu_attention attention;
    bool *live;       /* [T] recurrent: the mask is not 0 */
    emu_recurrent recurrent;
} layer_run;

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void *carve(char *base, size_t *used, size_t count, size_t size)
{
    void *at = base ? base + *used : NULL;
    *used += (count * size + 63) / 64 * 64;
    return at;
}

static size_t layout_attention(layer_run *run, char *base, size_t used)
{
    const emu_model_info *info = &run->m->info;
    emu_attention *a = &run->attention;
    size_t t = (size_t)run->chunk, workers = (size_t)emu_threads_get();
    size_t group = (size_t)(info->heads / info->kv_heads), dims = (size_t)info->head_dim, span = (size_t)run->rows + t;
    run->k = carve(base, &used, t * run->kv_width, sizeof(uint16_t));
    run->v = carve(base, &used, t * run->kv_width, sizeof(uint16_t));
    a->runs = carve(base, &used, t * (size_t)emu_runs_room(run->rows, run->chunk), sizeof(emu_run));
    a->num_runs = carve(base, &used, t, sizeof(int));
    a->tainted = carve(base, &used, span, 1);
    a->scores = carve(base, &used, workers * group * span, sizeof(float));
    a->sums = carve(base, &used, workers * (2 * group + 1) * dims, sizeof(double));
    return used;
}

static size_t layout_recurrence(layer_run *run, char *base, size_t used)
{
    const emu_model_info *info = &run->m->info;
    emu_recurrent *r = &run->recurrent;
    size_t t = (size_t)run->chunk, channels = (size_t)info->conv_dim, heads = (size_t)info->value_heads;
    run->live = carve(base, &used, t, sizeof(bool));
    r->columns = carve(base, &used, emu_recurrent_columns(info, run->chunk), sizeof(float));
    r->ones = carve(base, &used, channels, sizeof(float));
    r->rates = carve(base, &used, t * 2 * heads, sizeof(float));
    r->state = carve(base, &used, emu_recurrent_state(info), sizeof(float));
    return used;
}

/* Lays the buffers out from `base`; with NULL only counts. Returns the bytes needed. */
static size_t layout(layer_run *run, char *base)
{
    const emu_model_info *info = &run->m->info;
    size_t t = (size_t)run->chunk, used = 0;
    run->x = carve(base, &used, t * run->hidden, sizeof(float));
    run->normed = carve(base, &used, t * run->hidden, sizeof(float));
    run->wide = carve(base, &used, t * larger(run->projected, 2 * run->ffn), sizeof(float));
    run->attended = carve(base, &used, t * run->width, sizeof(float));
    run->back = carve(base, &used, t * run->hidden, sizeof(float));
    return info->recurrent ? layout_recurrence(run, base, used) : layout_attention(run, base, used);
}

static void each_token(layer_run *run, emu_pool_fn fn)
{
    (run->tokens > 8 ? emu_pool_run : emu_pool_run_alone)(fn, run, run->tokens);
}

static void scan_token(void *context, int t, int worker)
{
    layer_run *run = context;
    (void)worker;
    emu_attention_scan(&run->attention, t);
}

/* Finds how many of the first tokens are to be computed, and what they see. The last ones are padding where their masks
 * show nothing; padding that somebody sees, or that would spoil others by NaN, is computed. */
static void find_tokens(layer_run *run)
{
    const emu_attention *a = &run->attention;
    int seen = 0, room = emu_runs_room(run->rows, run->chunk);
    size_t hidden = run->hidden;
    run->tokens = run->chunk;
    while (run->tokens > 1 && !emu_attention_shows(a, run->tokens - 1)
        && !emu_has_nonfinite(run->input + (size_t)(run->tokens - 1) * hidden, 2 * hidden))
        run->tokens--;
    each_token(run, scan_token);
    for (int t = 0; t < run->tokens; t++) {
        const emu_run *runs = a->runs + (size_t)t * (size_t)room, *last = runs + a->num_runs[t] - 1;
        int end = last < runs ? 0 : last->start + last->length - run->rows;
        seen = end > seen ? end : seen;
    }
    if (seen <= run->tokens) return;
    run->tokens = run->chunk;
    each_token(run, scan_token);
}

/* The same of a recurrent layer, whose mask multiplies: the last tokens are padding where it is 0, if padding changes no
 * state; 0 times NaN or infinity is NaN, and is computed. */
static void find_live(layer_run *run)
{
    bool exact = !run->m->recurrence.spoils;
    for (int t = 0; t < run->chunk; t++)
        run->live[t] = !exact || emu_from_bf16(run->mask[t]) != 0.0f
            || emu_has_nonfinite(run->input + (size_t)t * run->hidden, 2 * run->hidden);
    run->tokens = run->chunk;
    while (run->tokens > 1 && !run->live[run->tokens - 1]) run->tokens--;
}

/* Input norm, and the mask of a recurrent layer. */
static void begin_token(void *context, int t, int worker)
{
    layer_run *run = context;
    float *x = run->x + (size_t)t * run->hidden, *normed = run->normed + (size_t)t * run->hidden;
    (void)worker;
    emu_widen(x, run->input + (size_t)t * run->hidden, run->hidden);
    emu_model_norm(run->m, normed, x, EMU_W_INPUT_NORM, run->hidden);
    for (size_t i = 0; run->m->info.recurrent && i < run->hidden; i++) normed[i] *= emu_from_bf16(run->mask[t]);
}

static void add_bias(float *x, const uint16_t *bias, size_t n)
{
    for (size_t i = 0; bias && i < n; i++) x[i] += emu_from_bf16(bias[i]);
}

/* Per head: q/k norm where the family has one, then RoPE. */
static void finish_heads(const emu_model *m, float *x, int heads, int norm, const float *cosine, const float *sine)
{
    size_t dims = (size_t)m->info.head_dim;
    for (int h = 0; h < heads; h++, x += dims) {
        if (m->weights[norm]) emu_model_norm(m, x, x, norm, dims);
        emu_rope_rotate(x, cosine, sine, m->rope_half);
    }
}

/* A chunk's indices have a row for each axis where there are three; decode's one element stands for all. */
static void token_angles(const layer_run *run, int t, float *cosine, float *sine)
{
    const emu_model *m = run->m;
    const float *inv_freq = m->weights[EMU_W_INV_FREQ];
    for (int i = 0; i < m->rope_half; i++) {
        size_t row = run->chunk > 1 ? m->rope_axis[i] : 0;
        uint32_t position = run->positions[row * (size_t)run->chunk + (size_t)t];
        emu_rope_angles(cosine + i, sine + i, position, inv_freq + i, 1, m->rope_factor);
    }
}

/* Biases, norms and RoPE of q and k; K and V rounded. */
static void rotate_token(void *context, int t, int worker)
{
    layer_run *run = context;
    const emu_model *m = run->m;
    const emu_model_info *info = &m->info;
    float *q = run->wide + (size_t)t * run->projected, *k = q + run->width, *v = k + run->kv_width;
    float cosine[EMU_MAX_HEAD_DIM / 2], sine[EMU_MAX_HEAD_DIM / 2];
    (void)worker;
    add_bias(q, m->weights[EMU_W_Q_BIAS], run->width);
    add_bias(k, m->weights[EMU_W_K_BIAS], run->kv_width);
    add_bias(v, m->weights[EMU_W_V_BIAS], run->kv_width);
    token_angles(run, t, cosine, sine);
    finish_heads(m, q, info->heads, EMU_W_Q_NORM, cosine, sine);
    finish_heads(m, k, info->kv_heads, EMU_W_K_NORM, cosine, sine);
    emu_narrow(run->k + (size_t)t * run->kv_width, k, run->kv_width);
    emu_narrow(run->v + (size_t)t * run->kv_width, v, run->kv_width);
}

static void attend_item(void *context, int item, int worker)
{
    layer_run *run = context;
    emu_attention_head(&run->attention, item / run->attention.kv_heads, item % run->attention.kv_heads, worker);
}

static void attend(layer_run *run, bool scan_nan)
{
    emu_attention *a = &run->attention;
    uint8_t *tainted = (uint8_t *)a->tainted;
    memset(tainted + run->rows, 0, (size_t)run->chunk);
    bool any = emu_attention_taint(tainted + run->rows, run->k, run->v, run->tokens, (int)run->kv_width);
    if (scan_nan) {
        any |= emu_attention_taint(tainted, a->k_cache, a->v_cache, run->rows, (int)run->kv_width);
    } else {
        memset(tainted, 0, (size_t)run->rows);
    }
    if (!any) a->tainted = NULL;
    int visible = 0;
    for (int i = 0; i < a->num_runs[0]; i++) visible += a->runs[i].length;
    bool share = run->tokens > 1 || (size_t)visible * run->width > SHARE_FROM;
    (share ? emu_pool_run : emu_pool_run_alone)(attend_item, run, run->tokens * a->kv_heads);
}

/* What attention gives times sigmoid(gate). */
static void gate_token(void *context, int t, int worker)
{
    layer_run *run = context;
    float *out = run->attended + (size_t)t * run->width;
    float *gate = run->wide + (size_t)t * run->projected + run->width + 2 * run->kv_width;
    (void)worker;
    for (size_t i = 0; i < run->width; i++) gate[i] = -gate[i];
    emu_math_kernels()->exponential(gate, gate, run->width);
    for (size_t i = 0; i < run->width; i++) out[i] /= 1.0f + gate[i];
}

/* What a block gives, normed where the family does that, into the residual stream. */
static void add_residual(const layer_run *run, float *x, float *back, int norm)
{
    if (run->m->weights[norm]) emu_model_norm(run->m, back, back, norm, run->hidden);
    for (size_t i = 0; i < run->hidden; i++) x[i] += back[i];
}

/* First residual, second norm. */
static void middle_token(void *context, int t, int worker)
{
    layer_run *run = context;
    float *x = run->x + (size_t)t * run->hidden, *back = run->back + (size_t)t * run->hidden;
    (void)worker;
    add_bias(back, run->m->weights[EMU_W_O_BIAS], run->hidden);
    add_residual(run, x, back, EMU_W_ATTENTION_OUT_NORM);
    emu_model_norm(run->m, run->normed + (size_t)t * run->hidden, x, EMU_W_POST_NORM, run->hidden);
}

static void activate_token(void *context, int t, int worker)
{
    layer_run *run = context;
    float *gate = run->wide + (size_t)t * 2 * run->ffn;
    (void)worker;
    (run->m->gelu ? emu_math_kernels()->geglu : emu_math_kernels()->swiglu)(gate, gate + run->ffn, run->ffn);
}

/* Second residual, into the output, which may be the input. */
static void end_token(void *context, int t, int worker)
{
    layer_run *run = context;
    float *x = run->x + (size_t)t * run->hidden, *back = run->back + (size_t)t * run->hidden;
    (void)worker;
    add_residual(run, x, back, EMU_W_FFN_OUT_NORM);
    emu_narrow(run->output + (size_t)t * run->hidden, x, run->hidden);
}

/* From `normed` to `attended`. */
static void mix_by_attention(layer_run *run, bool scan_nan)
{
    const emu_model *m = run->m;
    int hidden = (int)run->hidden, width = (int)run->width, kv = (int)run->kv_width;
    const emu_matrix qkvg[] = {emu_model_matrix(m, EMU_W_Q, width, hidden), emu_model_matrix(m, EMU_W_K, kv, hidden),
        emu_model_matrix(m, EMU_W_V, kv, hidden), emu_model_matrix(m, EMU_W_Q_GATE, width, hidden)};
    emu_matmul(qkvg, m->gated ? 4 : 3, run->normed, run->hidden, run->tokens, run->wide, run->projected);
    each_token(run, rotate_token);
    attend(run, scan_nan);
    if (m->gated) each_token(run, gate_token);
}

static void mix_by_recurrence(layer_run *run)
{
    const emu_model *m = run->m;
    int hidden = (int)run->hidden, heads = m->info.value_heads;
    const emu_matrix all[] = {emu_model_matrix(m, EMU_W_QKV, m->info.conv_dim, hidden),
        emu_model_matrix(m, EMU_W_Z, (int)run->width, hidden), emu_model_matrix(m, EMU_W_B, heads, hidden),
        emu_model_matrix(m, EMU_W_A, heads, hidden)};
    emu_matmul(all, 4, run->normed, run->hidden, run->tokens, run->wide, run->projected);
    emu_recurrent_mix(&run->recurrent);
}

static void compute(layer_run *run, bool scan_nan)
{
    const emu_model *m = run->m;
    int hidden = (int)run->hidden, width = (int)run->width, ffn = (int)run->ffn, tokens = run->tokens;
    const emu_matrix o = emu_model_matrix(m, EMU_W_O, hidden, width),
        down = emu_model_matrix(m, EMU_W_DOWN, hidden, ffn);
    const emu_matrix gate_up[] = {emu_model_matrix(m, EMU_W_GATE, ffn, hidden),
        emu_model_matrix(m, EMU_W_UP, ffn, hidden)};
    each_token(run, begin_token);
    if (m->info.recurrent) mix_by_recurrence(run);
    else mix_by_attention(run, scan_nan);
    emu_matmul(&o, 1, run->attended, run->width, tokens, run->back, run->hidden);
    each_token(run, middle_token);
    emu_matmul(gate_up, 2, run->normed, run->hidden, tokens, run->wide, 2 * run->ffn);
    each_token(run, activate_token);
    emu_matmul(&down, 1, run->wide, 2 * run->ffn, tokens, run->back, run->hidden);
    each_token(run, end_token);
}

static void begin_attention(layer_run *run, const emu_group *g, void *const *in)
{
    const emu_model_info *info = &run->m->info;
    emu_attention *a = &run->attention;
    a->tokens = g->tokens;
    a->rows = g->rows;
    a->heads = info->heads;
    a->kv_heads = info->kv_heads;
    a->dims = info->head_dim;
    a->scale = run->m->attention_scale;
    a->mask = run->mask;
    a->k_cache = in[EMU_IN_K];
    a->v_cache = in[EMU_IN_V];
    a->k_own = run->k;
    a->v_own = run->v;
    a->out = run->attended;
    a->q = run->wide;
    a->ldq = run->projected;
    find_tokens(run);
    size_t kept = (size_t)run->tokens, padding = (size_t)(run->chunk - run->tokens);
    memset(run->k + kept * run->kv_width, 0, padding * run->kv_width * sizeof *run->k);
    memset(run->v + kept * run->kv_width, 0, padding * run->kv_width * sizeof *run->v);
}

static void begin_recurrence(layer_run *run, const emu_group *g, void *const *in, void *const *out)
{
    emu_recurrent *r = &run->recurrent;
    int conv = run->m->recurrence.swapped ? EMU_IN_V : EMU_IN_K, state = EMU_IN_K + EMU_IN_V - conv;
    find_live(run);
    r->m = run->m;
    r->tokens = run->tokens;
    r->fresh = run->m->recurrence.p0_zero && g->kind == EMU_GROUP_CHUNK && g->rows == 0;
    r->live = run->live;
    r->conv_in = in[conv];
    r->state_in = in[state];
    r->conv_out = out[conv]; /* outputs are numbered alike */
    r->state_out = out[state];
    r->projected = run->wide;
    r->mixed = run->attended;
}

static void write_outputs(layer_run *run, void *const *out)
{
    size_t kept = (size_t)run->tokens, padding = (size_t)(run->chunk - run->tokens);
    if (run->m->info.recurrent) {
        emu_recurrent_write(&run->recurrent);
    } else {
        memcpy(out[EMU_OUT_K], run->k, (size_t)run->chunk * run->kv_width * sizeof(uint16_t));
        memcpy(out[EMU_OUT_V], run->v, (size_t)run->chunk * run->kv_width * sizeof(uint16_t));
    }
    memset(run->output + kept * run->hidden, 0, padding * run->hidden * sizeof *run->output);
}

int emu_layer_run(const emu_model *m, const emu_group *g, void *const *in, void *const *out, bool scan_nan)
{
    const emu_model_info *info = &m->info;
    layer_run run = {.m = m, .chunk = g->tokens, .tokens = g->tokens, .rows = g->rows, .input = in[EMU_IN_INPUT],
        .output = out[EMU_OUT_OUTPUT], .positions = in[EMU_IN_INDICES], .mask = in[EMU_IN_MASK]};
    run.hidden = (size_t)info->hidden;
    run.kv_width = (size_t)info->kv_heads * (size_t)info->head_dim;
    run.width = info->recurrent ? (size_t)info->value_heads * (size_t)info->value_dim
        : (size_t)info->heads * (size_t)info->head_dim;
    run.projected = info->recurrent ? emu_recurrent_width(info)
        : (m->gated ? 2 : 1) * run.width + 2 * run.kv_width;
    run.ffn = (size_t)info->ffn;
    char *scratch = emu_scratch_take(layout(&run, NULL));
    if (!scratch) return -2;
    layout(&run, scratch);
    if (info->recurrent) begin_recurrence(&run, g, in, out);
    else begin_attention(&run, g, in);
    compute(&run, scan_nan);
    write_outputs(&run, out);
    emu_scratch_give(scratch);
    return run.tokens;
}
