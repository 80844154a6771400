/* Running a vision encoder: patches -> tokens that see each other, block by block -> merged tokens as wide as the text
 * part's.
 *
 * Tokens are in the order of the merger: squares of merge x merge patches, row by row, a class token behind them. All
 * is fp32 but for the weights. Attention multiplies by the kernels that matrices are multiplied by, whose left side is
 * bf16: keys and values are taken apart into two such numbers, 16 bits of their 24.
 */
#include "vision.h"

#include <math.h>

#include "pool.h"

#define QUERIES 16 /* that share a reading of keys and values */
#define PARTS 2

typedef struct vision_run {
    const emu_model *m;
    const emu_vision *v;
    const void *pixels;
    int tokens, patches, block;          /* tokens: the class token with them */
    size_t hidden, dims, width, ffn, group, wide_size; /* width: heads * dims; group: what one token is merged from */
    float *x, *normed, *wide, *attended, *back, *ones, *merged;
    float *cosine, *sine;                /* [tokens][dims / 2] */
    int *window;                         /* [tokens] the window that a token is in */
    uint16_t *k[PARTS], *v_by_dim[PARTS]; /* [heads][tokens][dims], [heads][dims][tokens] */
    float *scores, *parts;               /* per worker [QUERIES][tokens], [QUERIES][max(tokens, dims)] */
} vision_run;

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

/* Lays the buffers out from `base`; with NULL only counts. Returns the bytes needed. */
static size_t layout(vision_run *run, char *base)
{
    size_t used = 0, t = (size_t)run->tokens, workers = (size_t)emu_threads_get(), half = run->dims / 2;
    size_t tokens_out = (size_t)emu_vision_tokens(run->v), mid = larger((size_t)run->v->mid, (size_t)run->v->out);
    run->x = carve(base, &used, t * run->hidden, sizeof(float));
    run->normed = carve(base, &used, t * run->hidden, sizeof(float));
    run->wide = carve(base, &used, larger(t * run->wide_size, tokens_out * mid), sizeof(float));
    run->attended = carve(base, &used, t * run->width, sizeof(float));
    run->back = carve(base, &used, t * run->hidden, sizeof(float));
    run->merged = carve(base, &used, tokens_out * (size_t)run->v->out, sizeof(float));
    run->ones = carve(base, &used, run->ffn, sizeof(float));
    run->cosine = carve(base, &used, t * half, sizeof(float));
    run->sine = carve(base, &used, t * half, sizeof(float));
    run->window = carve(base, &used, t, sizeof(int));
    for (int p = 0; p < PARTS; p++) {
        run->k[p] = carve(base, &used, t * run->width, sizeof(uint16_t));
        run->v_by_dim[p] = carve(base, &used, t * run->width, sizeof(uint16_t));
    }
    run->scores = carve(base, &used, workers * QUERIES * t, sizeof(float));
    run->parts = carve(base, &used, workers * QUERIES * larger(t, run->dims), sizeof(float));
    return used;
}

static void place(const vision_run *run, int t, int *row, int *col)
{
    int merge = run->v->merge, across = run->v->cols / merge;
    int within = t % (merge * merge), square = t / (merge * merge);
    *row = square / across * merge + within / merge;
    *col = square % across * merge + within % merge;
}

static float brightness(const vision_run *run, unsigned value, int channel)
{
    return ((float)value / 255.0f - (float)run->v->mean.at[channel]) / (float)run->v->std.at[channel];
}

/* Pixels of a patch as its matrix takes them: by frame, row, column, channel. */
static void patch_token(void *context, int t, int worker)
{
    vision_run *run = context;
    const emu_vision *v = run->v;
    int row, col, side = v->patch, line = v->cols * side, size = 3 * v->frames * side * side;
    float *out = run->wide + (size_t)t * (size_t)size;
    (void)worker;
    place(run, t, &row, &col);
    for (int i = 0; i < size; i++) {
        int channel = i % 3, x = col * side + i / 3 % side, y = row * side + i / 3 / side % side;
        size_t at = (size_t)y * (size_t)line + (size_t)x, plane = (size_t)line * (size_t)(v->rows * side);
        if (v->pixels == EMU_PLANES_FP32) out[i] = ((const float *)run->pixels)[(size_t)channel * plane + at];
        else if (v->pixels == EMU_IMAGE_U8)
            out[i] = brightness(run, ((const uint8_t *)run->pixels)[3 * at + (size_t)channel], channel);
        else out[i] = brightness(run, ((const uint8_t *)run->pixels)[(size_t)t * (size_t)size + (size_t)i], channel);
    }
}

static void add_vector(float *x, const uint16_t *vector, size_t block, size_t n)
{
    for (size_t i = 0; vector && i < n; i++) x[i] += emu_from_bf16(vector[block * n + i]);
}

static void add_floats(float *x, const float *values, size_t n)
{
    for (size_t i = 0; values && i < n; i++) x[i] += values[i];
}

/* Position, window and angles of a token; a class token has no place, and its family neither windows nor angles. */
static void embed_token(void *context, int t, int worker)
{
    vision_run *run = context;
    const float *positions = run->m->weights[EMU_W_POSITIONS], *inv_freq = run->m->weights[EMU_W_INV_FREQ];
    float *x = run->x + (size_t)t * run->hidden;
    int row, col, quarter = (int)run->dims / 4, window = run->v->window * run->v->merge;
    (void)worker;
    place(run, t, &row, &col);
    run->window[t] = window ? row / window * run->v->cols + col / window : 0;
    for (int axis = 0; inv_freq && axis < 2; axis++) {
        size_t at = (size_t)t * (run->dims / 2) + (size_t)(axis * quarter);
        emu_rope_angles(run->cosine + at, run->sine + at, (uint32_t)(axis ? col : row), inv_freq, quarter, 1.0f);
    }
    if (t == run->patches) {
        memcpy(x, run->m->weights[EMU_W_CLASS], run->hidden * sizeof *x);
        return;
    }
    add_vector(x, run->m->weights[EMU_W_PATCH_BIAS], 0, run->hidden);
    add_floats(x, positions ? positions + (size_t)t * run->hidden : NULL, run->hidden);
}

static void layer_norm(float *y, const float *x, const uint16_t *weight, const uint16_t *bias, size_t n, float eps)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    float mean = (float)(sum / (double)n);
    for (size_t i = 0; i < n; i++) squares += (double)(x[i] - mean) * (double)(x[i] - mean);
    float scale = 1.0f / sqrtf((float)(squares / (double)n) + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * scale * emu_from_bf16(weight[i]) + (bias ? emu_from_bf16(bias[i]) : 0.0f);
}

/* y = norm of x, n numbers, by row `block` of these weights. */
static void norm(const vision_run *run, float *y, const float *x, int weight, int bias, int block, size_t n, float eps)
{
    const uint16_t *w = run->m->weights[weight], *b = run->m->weights[bias];
    size_t at = (size_t)block * n;
    if (run->v->rms) emu_rmsnorm(y, x, w + at, n, eps, 0.0f);
    else layer_norm(y, x, w + at, b ? b + at : NULL, n, eps);
}

static void begin_token(void *context, int t, int worker)
{
    vision_run *run = context;
    size_t at = (size_t)t * run->hidden;
    (void)worker;
    norm(run, run->normed + at, run->x + at, EMU_W_INPUT_NORM, EMU_W_INPUT_NORM_BIAS, run->block, run->hidden,
        run->m->rms_eps);
}

/* value as a sum of bf16 numbers */
static void take_apart(uint16_t *const parts[PARTS], size_t at, float value)
{
    for (int p = 0; p < PARTS; p++) {
        uint16_t part = emu_to_bf16(value);
        parts[p][at] = part;
        value -= emu_from_bf16(part);
    }
}

/* Biases and rotation; keys and values taken apart, values turned over. */
static void rotate_token(void *context, int t, int worker)
{
    vision_run *run = context;
    const void *const *w = run->m->weights;
    size_t token = (size_t)t, tokens = (size_t)run->tokens, block = (size_t)run->block;
    size_t half = run->dims / 2;
    float *q = run->wide + token * 3 * run->width, *k = q + run->width, *v = k + run->width;
    (void)worker;
    add_vector(q, w[EMU_W_Q_BIAS], block, run->width);
    add_vector(k, w[EMU_W_K_BIAS], block, run->width);
    add_vector(v, w[EMU_W_V_BIAS], block, run->width);
    for (size_t h = 0; w[EMU_W_INV_FREQ] && h < 2 * (size_t)run->m->info.heads; h++)
        emu_rope_rotate(q + h * run->dims, run->cosine + token * half, run->sine + token * half, (int)half);
    for (size_t i = 0; i < run->width; i++) {
        size_t head = i / run->dims, d = i % run->dims;
        take_apart(run->k, (head * tokens + token) * run->dims + d, k[i]);
        take_apart(run->v_by_dim, i * tokens + token, v[i]);
    }
}

/* out[query][row] = the sum over the parts of row . x[query]; `rows` rows of n numbers. */
static void products(uint16_t *const parts[PARTS], size_t at, int rows, size_t n, const float *x, size_t ldx,
    int queries, float *out, float *part)
{
    for (int p = 0; p < PARTS; p++) {
        float *to = p ? part : out;
        emu_math_kernels()->dot[EMU_BF16](parts[p] + at, n, rows, x, ldx, queries, n, to, (size_t)rows);
        for (size_t i = 0; p && i < (size_t)queries * (size_t)rows; i++) out[i] += part[i];
    }
}

static bool windowed(const vision_run *run)
{
    if (!run->v->window) return false;
    for (int i = 0; i < run->v->full.count; i++)
        if ((int)run->v->full.at[i] == run->block) return false;
    return true;
}

/* Scores of one query into weights; their sum. */
static double weigh(const vision_run *run, int query, float *s)
{
    bool some = windowed(run);
    float most = -INFINITY;
    for (int r = 0; r < run->tokens; r++) {
        s[r] = some && run->window[r] != run->window[query] ? -INFINITY : s[r] * run->m->attention_scale;
        most = s[r] > most ? s[r] : most;
    }
    return emu_math_kernels()->weights(s, run->tokens, most);
}

/* One head of a few queries. */
static void attend_item(void *context, int item, int worker)
{
    vision_run *run = context;
    int heads = run->m->info.heads, first = item / heads * QUERIES, head = item % heads;
    int queries = run->tokens - first < QUERIES ? run->tokens - first : QUERIES;
    size_t tokens = (size_t)run->tokens, dims = run->dims, ldq = 3 * run->width, at = (size_t)head * tokens * dims;
    float *scores = run->scores + (size_t)worker * QUERIES * tokens;
    float *part = run->parts + (size_t)worker * QUERIES * larger(tokens, dims), out[QUERIES * EMU_MAX_HEAD_DIM];
    double total[QUERIES];
    const float *q = run->wide + (size_t)first * ldq + (size_t)head * dims;
    products(run->k, at, run->tokens, dims, q, ldq, queries, scores, part);
    for (int i = 0; i < queries; i++) total[i] = weigh(run, first + i, scores + (size_t)i * tokens);
    products(run->v_by_dim, at, (int)dims, tokens, scores, tokens, queries, out, part);
    for (size_t i = 0; i < (size_t)queries; i++) {
        float *to = run->attended + ((size_t)first + i) * run->width + (size_t)head * dims;
        for (size_t d = 0; d < dims; d++) to[d] = (float)((double)out[i * dims + d] / total[i]);
    }
}

/* x += back, with its bias and scale. */
static void add_back(vision_run *run, int t, int bias, int scale)
{
    float *x = run->x + (size_t)t * run->hidden, *back = run->back + (size_t)t * run->hidden;
    const uint16_t *scales = run->m->weights[scale];
    size_t block = (size_t)run->block;
    add_vector(back, run->m->weights[bias], block, run->hidden);
    for (size_t i = 0; scales && i < run->hidden; i++) back[i] *= emu_from_bf16(scales[block * run->hidden + i]);
    for (size_t i = 0; i < run->hidden; i++) x[i] += back[i];
}

static void middle_token(void *context, int t, int worker)
{
    vision_run *run = context;
    size_t at = (size_t)t * run->hidden;
    (void)worker;
    add_back(run, t, EMU_W_O_BIAS, EMU_W_ATTENTION_SCALE);
    norm(run, run->normed + at, run->x + at, EMU_W_POST_NORM, EMU_W_POST_NORM_BIAS, run->block, run->hidden,
        run->m->rms_eps);
}

static void end_token(void *context, int t, int worker)
{
    (void)worker;
    add_back(context, t, EMU_W_DOWN_BIAS, EMU_W_FFN_SCALE);
}

/* x[i] = gelu(x[i]) * other[i], by the error function in double: rounded to fp32 it is the same with every C library */
static void gelu(float *x, const float *other, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double value = x[i];
        x[i] = (float)(0.5 * value * (1.0 + erf(value * 0.70710678118654752440))) * (other ? other[i] : 1.0f);
    }
}

static void activate_token(void *context, int t, int worker)
{
    vision_run *run = context;
    const void *const *w = run->m->weights;
    bool gated = w[EMU_W_GATE] != NULL;
    float *gate = run->wide + (size_t)t * (gated ? 2 : 1) * run->ffn, *up = gated ? gate + run->ffn : gate;
    const float *other = gated ? up : run->ones;
    (void)worker;
    if (gated) add_vector(gate, w[EMU_W_GATE_BIAS], (size_t)run->block, run->ffn);
    add_vector(up, w[EMU_W_UP_BIAS], (size_t)run->block, run->ffn);
    switch (run->v->activation) {
    case EMU_GELU: gelu(gate, other, run->ffn); break;
    case EMU_GELU_TANH: emu_math_kernels()->geglu(gate, other, run->ffn); break;
    case EMU_SILU: emu_math_kernels()->swiglu(gate, other, run->ffn); break;
    }
}

/* Matrix number `block` of those that lie one below the other. */
static emu_matrix matrix(const vision_run *run, int which, int block, size_t rows, size_t cols)
{
    emu_matrix m = emu_model_matrix(run->m, which, (int)rows, (int)cols);
    size_t first = (size_t)block * rows;
    m.w = (const char *)m.w + first * cols * (m.scale ? 1 : 2);
    if (m.scale) m.scale += first;
    return m;
}

static void run_block(vision_run *run)
{
    int b = run->block, tokens = run->tokens, groups = (tokens + QUERIES - 1) / QUERIES;
    size_t hidden = run->hidden, width = run->width, ffn = run->ffn;
    bool gated = run->m->weights[EMU_W_GATE] != NULL;
    const emu_matrix qkv[] = {matrix(run, EMU_W_Q, b, width, hidden), matrix(run, EMU_W_K, b, width, hidden),
        matrix(run, EMU_W_V, b, width, hidden)};
    const emu_matrix o = matrix(run, EMU_W_O, b, hidden, width), down = matrix(run, EMU_W_DOWN, b, hidden, ffn);
    const emu_matrix gate_up[] = {matrix(run, EMU_W_GATE, b, ffn, hidden), matrix(run, EMU_W_UP, b, ffn, hidden)};
    size_t ldw = (gated ? 2 : 1) * ffn;
    emu_pool_run(begin_token, run, tokens);
    emu_matmul(qkv, 3, run->normed, hidden, tokens, run->wide, 3 * width);
    emu_pool_run(rotate_token, run, tokens);
    emu_pool_run(attend_item, run, groups * run->m->info.heads);
    emu_matmul(&o, 1, run->attended, width, tokens, run->back, hidden);
    emu_pool_run(middle_token, run, tokens);
    emu_matmul(gated ? gate_up : gate_up + 1, gated ? 2 : 1, run->normed, hidden, tokens, run->wide, ldw);
    emu_pool_run(activate_token, run, tokens);
    emu_matmul(&down, 1, run->wide, ldw, tokens, run->back, hidden);
    emu_pool_run(end_token, run, tokens);
}

/* What the merger takes, in `normed`: number 0 by its own norms, others by those of the further outputs. */
static void norm_merged(vision_run *run, int number)
{
    const emu_vision *v = run->v;
    size_t n = (size_t)run->patches * run->hidden;
    size_t step = v->merge_norm == EMU_NORM_TOKEN && !number ? run->hidden : run->group;
    bool final = number == 0 && run->m->weights[EMU_W_NORM];
    float eps = (float)v->merger_eps;
    memcpy(run->normed, run->x, n * sizeof *run->x);
    for (size_t at = 0; final && at < n; at += run->hidden)
        norm(run, run->normed + at, run->normed + at, EMU_W_NORM, EMU_W_NORM_BIAS, 0, run->hidden, run->m->rms_eps);
    if (!number && v->merge_norm == EMU_NORM_NONE) return;
    for (size_t at = 0; at < n; at += step) {
        float *x = run->normed + at;
        if (number) norm(run, x, x, EMU_W_DEEP_NORM, EMU_W_DEEP_NORM_BIAS, number - 1, step, eps);
        else norm(run, x, x, EMU_W_MERGE_NORM, EMU_W_MERGE_NORM_BIAS, 0, step, eps);
    }
}

static void merge(vision_run *run, int number, void *output)
{
    const emu_vision *v = run->v;
    int tokens = emu_vision_tokens(v);
    size_t mid = v->mid ? (size_t)v->mid : run->group, out = (size_t)v->out;
    const float *x = run->normed;
    const emu_matrix second = matrix(run, EMU_W_MERGE_OUT, number, out, mid);
    norm_merged(run, number);
    if (v->mid) {
        const emu_matrix first = matrix(run, EMU_W_MERGE_IN, number, mid, run->group);
        emu_matmul(&first, 1, run->normed, run->group, tokens, run->wide, mid);
        for (size_t t = 0; t < (size_t)tokens; t++) {
            add_vector(run->wide + t * mid, run->m->weights[EMU_W_MERGE_IN_BIAS], (size_t)number, mid);
            gelu(run->wide + t * mid, NULL, mid);
        }
        x = run->wide;
    }
    emu_matmul(&second, 1, x, mid, tokens, run->merged, out);
    for (size_t t = 0; t < (size_t)tokens; t++)
        add_vector(run->merged + t * out, run->m->weights[EMU_W_MERGE_OUT_BIAS], (size_t)number, out);
    size_t n = (size_t)tokens * out;
    if (run->m->outputs[number].type == EMU_TYPE_FP32) memcpy(output, run->merged, n * sizeof(float));
    else emu_narrow(output, run->merged, n);
}

static void run_all(vision_run *run, void *const *out)
{
    size_t pixels = 3 * (size_t)(run->v->frames * run->v->patch * run->v->patch);
    const emu_matrix patch = matrix(run, EMU_W_PATCH, 0, run->hidden, pixels);
    int deep = 0;
    for (size_t i = 0; i < run->ffn; i++) run->ones[i] = 1.0f;
    emu_pool_run(patch_token, run, run->patches);
    emu_matmul(&patch, 1, run->wide, pixels, run->patches, run->x, run->hidden);
    emu_pool_run(embed_token, run, run->tokens);
    for (run->block = 0; run->block < run->m->info.layers; run->block++) {
        run_block(run);
        if (deep < run->v->deep.count && (int)run->v->deep.at[deep] == run->block) {
            deep++;
            merge(run, deep, out[deep]);
        }
    }
    merge(run, 0, out[0]);
}

int emu_vision_run(const emu_model *m, const void *pixels, void *const *out)
{
    const emu_model_info *info = &m->info;
    const emu_vision *v = &m->vision;
    vision_run run = {.m = m, .v = v, .pixels = pixels, .patches = emu_vision_patches(v)};
    run.tokens = run.patches + (m->weights[EMU_W_CLASS] != NULL);
    run.hidden = (size_t)info->hidden;
    run.dims = (size_t)info->head_dim;
    run.width = (size_t)info->heads * run.dims;
    run.ffn = (size_t)info->ffn;
    run.group = run.hidden * (size_t)(v->merge * v->merge);
    run.wide_size = larger(3 * run.width, (m->weights[EMU_W_GATE] ? 2 : 1) * run.ffn);
    run.wide_size = larger(run.wide_size, 3 * (size_t)(v->frames * v->patch * v->patch));
    char *scratch = emu_scratch_take(layout(&run, NULL));
    if (!scratch) return -2;
    layout(&run, scratch);
    run_all(&run, out);
    emu_scratch_give(scratch);
    return emu_vision_tokens(v);
}
