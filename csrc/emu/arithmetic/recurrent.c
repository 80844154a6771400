#include "recurrent.h"

#include <math.h>

#include "pool.h"

#define TINY 1e-6f /* added to the squared length of q and k, as in Hugging Face's l2norm */

size_t emu_recurrent_width(const emu_model_info *info)
{
    return (size_t)info->conv_dim + (size_t)info->value_heads * ((size_t)info->value_dim + 2);
}

size_t emu_recurrent_columns(const emu_model_info *info, int tokens)
{
    return ((size_t)info->conv_kernel - 1 + (size_t)tokens) * (size_t)info->conv_dim;
}

size_t emu_recurrent_state(const emu_model_info *info)
{
    return (size_t)info->value_heads * (size_t)info->key_dim * (size_t)info->value_dim;
}

/* ---- the types of states ----------------------------------------------------------------------------------------- */

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float from_fp16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00) return from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    float value = from_bits(rest << 13) * 0x1p112f; /* exact, subnormal numbers too */
    return from_bits(sign | to_bits(value));
}

/* Nearest, ties to even; every NaN becomes the same one. */
static uint16_t to_fp16(float value)
{
    uint32_t bits = to_bits(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return 0x7e00;
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* from 65520 on: infinity */
    if (rest < 0x38800000) /* below 2^-14: adding 0.5 leaves multiples of 2^-24 in the low bits */
        return (uint16_t)(sign | (to_bits(from_bits(rest) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13);
}

static void load(float *out, const void *in, size_t n, int type)
{
    const uint16_t *half = in;
    if (type == EMU_TYPE_FP32) memcpy(out, in, n * sizeof *out);
    else if (type == EMU_TYPE_BF16) emu_widen(out, half, n);
    else for (size_t i = 0; i < n; i++) out[i] = from_fp16(half[i]);
}

static void store(void *out, const float *in, size_t n, int type)
{
    uint16_t *half = out;
    if (type == EMU_TYPE_FP32) memcpy(out, in, n * sizeof *in);
    else if (type == EMU_TYPE_BF16) emu_narrow(half, in, n);
    else for (size_t i = 0; i < n; i++) half[i] = to_fp16(in[i]);
}

/* What storing and loading makes of the numbers. */
static void round_to(float *x, size_t n, int type)
{
    if (type == EMU_TYPE_BF16) for (size_t i = 0; i < n; i++) x[i] = emu_from_bf16(emu_to_bf16(x[i]));
    if (type == EMU_TYPE_FP16) for (size_t i = 0; i < n; i++) x[i] = from_fp16(to_fp16(x[i]));
}

/* ---- before the state: convolution, norms, rates ----------------------------------------------------------------- */

/* 1 / sqrt(x x' + TINY), summed in the order of emu_rmsnorm. */
static float inverse_length(const float *x, size_t n)
{
    float lanes[16] = {0};
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) lanes[j] += x[i + j] * x[i + j];
    for (int j = 0; i < n; i++, j++) lanes[j] += x[i] * x[i];
    for (int half = 8; half >= 1; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return 1.0f / sqrtf(lanes[0] + TINY);
}

static void scale(float *x, size_t n, float factor)
{
    for (size_t i = 0; i < n; i++) x[i] *= factor;
}

/* x = silu(convolution); the token's own channels are not rounded yet, those before it are. */
static void convolve(const emu_recurrent *r, float *x, const float *before)
{
    const emu_model_info *info = &r->m->info;
    const uint16_t *w = r->m->weights[EMU_W_CONV];
    size_t n = (size_t)info->conv_dim, taps = (size_t)info->conv_kernel - 1;
    for (size_t c = 0; c < n; c++) {
        float sum = 0.0f;
        for (size_t j = 0; j < taps; j++) sum += before[j * n + c] * emu_from_bf16(w[j * n + c]);
        x[c] = sum + x[c] * emu_from_bf16(w[taps * n + c]);
    }
    emu_math_kernels()->swiglu(x, r->ones, n);
}

/* Decay and learning rate of each value head, in double: the same with every C library. */
static void find_rates(const emu_recurrent *r, const float *b, const float *a, float *rates)
{
    int heads = r->m->info.value_heads;
    const float *a_log = r->m->weights[EMU_W_A_LOG], *dt_bias = r->m->weights[EMU_W_DT_BIAS];
    for (int h = 0; h < heads; h++) {
        double x = (double)(a[h] + dt_bias[h]), softplus = x > 20 ? x : log1p(exp(x));
        rates[h] = (float)exp(-exp((double)a_log[h]) * softplus);
        rates[heads + h] = (float)(1.0 / (1.0 + exp(-(double)b[h])));
    }
}

/* How many live tokens there are before this one. */
static size_t place_of(const emu_recurrent *r, int token)
{
    size_t place = 0;
    for (int t = 0; t < token; t++) place += r->live[t];
    return place;
}

static void prepare_token(void *context, int t, int worker)
{
    const emu_recurrent *r = context;
    const emu_model_info *info = &r->m->info;
    size_t conv = (size_t)info->conv_dim, heads = (size_t)info->value_heads, dims = (size_t)info->key_dim;
    float *x = r->projected + (size_t)t * emu_recurrent_width(info), *b = x + conv + heads * (size_t)info->value_dim;
    (void)worker;
    if (!r->live[t]) return;
    convolve(r, x, r->columns + place_of(r, t) * conv);
    float ask = 1.0f / sqrtf((float)info->key_dim), *k = x + (size_t)info->key_heads * dims;
    for (int h = 0; h < info->key_heads; h++) {
        float *head = x + (size_t)h * dims;
        scale(head, dims, inverse_length(head, dims) * ask);
        head = k + (size_t)h * dims;
        scale(head, dims, inverse_length(head, dims));
    }
    find_rates(r, b, b + heads, r->rates + (size_t)t * 2 * heads);
}

/* ---- the state --------------------------------------------------------------------------------------------------- */

/* All tokens of one value head. */
static void run_head(void *context, int h, int worker)
{
    const emu_recurrent *r = context;
    const emu_model_info *info = &r->m->info;
    size_t keys = (size_t)info->key_dim, values = (size_t)info->value_dim, heads = (size_t)info->value_heads;
    size_t size = keys * values, width = emu_recurrent_width(info);
    size_t key_head = (size_t)(h / (info->value_heads / info->key_heads)), key_heads = (size_t)info->key_heads;
    float *s = r->state + (size_t)h * size;
    int type = r->m->recurrence.type;
    (void)worker;
    for (int t = 0; t < r->tokens; t++) {
        const float *q = r->projected + (size_t)t * width + key_head * keys, *k = q + key_heads * keys;
        const float *v = r->projected + (size_t)t * width + 2 * key_heads * keys + (size_t)h * values;
        const float *rates = r->rates + (size_t)t * 2 * heads + h;
        float *out = r->mixed + ((size_t)t * heads + (size_t)h) * values;
        if (!r->live[t]) {
            memset(out, 0, values * sizeof *out);
            continue;
        }
        emu_math_kernels()->delta(s, info->key_dim, info->value_dim, k, q, v, rates[0], rates[heads], out);
        round_to(s, size, type);
    }
}

/* Norm of each head and the gate z. */
static void finish_token(void *context, int t, int worker)
{
    const emu_recurrent *r = context;
    const emu_model_info *info = &r->m->info;
    size_t values = (size_t)info->value_dim, all = (size_t)info->value_heads * values;
    float *out = r->mixed + (size_t)t * all;
    float *z = r->projected + (size_t)t * emu_recurrent_width(info) + (size_t)info->conv_dim;
    (void)worker;
    for (size_t at = 0; at < all; at += values)
        emu_rmsnorm(out + at, out + at, r->m->weights[EMU_W_STATE_NORM], values, r->m->rms_eps, 0.0f);
    emu_math_kernels()->swiglu(z, out, all);
    memcpy(out, z, all * sizeof *out);
}

static void begin(emu_recurrent *r)
{
    const emu_model_info *info = &r->m->info;
    size_t conv = (size_t)info->conv_dim, before = emu_recurrent_columns(info, 0), all = emu_recurrent_state(info);
    int type = r->m->recurrence.type;
    if (r->fresh) {
        memset(r->columns, 0, before * sizeof(float));
        memset(r->state, 0, all * sizeof(float));
    } else {
        load(r->columns, r->conv_in, before, type);
        load(r->state, r->state_in, all, type);
    }
    float *column = r->columns + before;
    for (int t = 0; t < r->tokens; t++) {
        if (!r->live[t]) continue;
        memcpy(column, r->projected + (size_t)t * emu_recurrent_width(info), conv * sizeof *column);
        round_to(column, conv, type);
        column += conv;
    }
    for (size_t c = 0; c < conv; c++) r->ones[c] = 1.0f;
}

void emu_recurrent_mix(emu_recurrent *r)
{
    int tokens = r->tokens, heads = r->m->info.value_heads;
    begin(r);
    (tokens > 8 ? emu_pool_run : emu_pool_run_alone)(prepare_token, r, tokens);
    (emu_recurrent_state(&r->m->info) > 1 << 16 ? emu_pool_run : emu_pool_run_alone)(run_head, r, heads);
    (tokens > 8 ? emu_pool_run : emu_pool_run_alone)(finish_token, r, tokens);
}

void emu_recurrent_write(const emu_recurrent *r)
{
    const emu_model_info *info = &r->m->info;
    const float *last = r->columns + place_of(r, r->tokens) * (size_t)info->conv_dim;
    store(r->conv_out, last, emu_recurrent_columns(info, 0), r->m->recurrence.type);
    store(r->state_out, r->state, emu_recurrent_state(info), r->m->recurrence.type);
}
