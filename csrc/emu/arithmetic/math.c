#include "math.h"

#include <math.h>
#include <stdatomic.h>

#include "model.h"
#include "pool.h"

/* Rows of a matrix per work item: as many as keep the asking ahead going, or for many tokens so few that the threads end
 * together. */
#define BLOCK_ROWS 32
#define BLOCK_ROWS_OF_MANY 16
#define MANY 8
#define SHARE_FROM (128 * 1024) /* multiply-adds from which waking other threads pays */

static int available(const char *isa)
{
#if defined(__x86_64__)
    if (strcmp(isa, "avx512") == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (strcmp(isa, "avx2") == 0) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    /* NEON is part of AArch64; elsewhere its table is NULL */
    return strcmp(isa, "scalar") == 0 || strcmp(isa, "neon") == 0;
}

static const emu_kernels *find(const char *isa)
{
    const emu_kernels *all[] = {emu_kernels_avx512(), emu_kernels_avx2(), emu_kernels_neon(), emu_kernels_scalar()};
    for (int i = 0; i < 4; i++)
        if (all[i] && (strcmp(isa, "auto") == 0 || strcmp(isa, all[i]->name) == 0) && available(all[i]->name))
            return all[i];
    return NULL;
}

static _Atomic(const emu_kernels *) chosen;

const emu_kernels *emu_math_kernels(void)
{
    const emu_kernels *kernels = atomic_load_explicit(&chosen, memory_order_acquire);
    if (!kernels) {
        kernels = find("auto");
        atomic_store_explicit(&chosen, kernels, memory_order_release);
    }
    return kernels;
}

int emu_math_select(const char *isa)
{
    const emu_kernels *kernels = find(isa);
    if (!kernels) return -1;
    atomic_store_explicit(&chosen, kernels, memory_order_release);
    return 0;
}

const char *emu_math_isa(void)
{
    return emu_math_kernels()->name;
}

bool emu_has_nonfinite(const void *data, size_t n)
{
    const uint8_t *bytes = data;
    uint64_t hit = 0, word;
    for (; n >= 8; n -= 8, bytes += 8) { /* four bf16 words: exponent all ones carries into the sign bit */
        memcpy(&word, bytes, 8);
        hit |= (word & 0x7FFF7FFF7FFF7FFFull) + 0x0080008000800080ull;
    }
    word = 0;
    memcpy(&word, bytes, n);
    hit |= (word & 0x7FFF7FFF7FFF7FFFull) + 0x0080008000800080ull;
    return hit & 0x8000800080008000ull;
}

void emu_widen(float *out, const uint16_t *in, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = emu_from_bf16(in[i]);
}

void emu_narrow(uint16_t *out, const float *in, size_t n)
{
    for (size_t i = 0; i < n; i++) out[i] = emu_to_bf16(in[i]);
}

void emu_rmsnorm(float *y, const float *x, const uint16_t *weight, size_t n, float eps, float offset)
{
    float lanes[16] = {0}; /* a fixed order, so that every build sums alike */
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) lanes[j] += x[i + j] * x[i + j];
    for (int j = 0; i < n; i++, j++) lanes[j] += x[i] * x[i];
    for (int half = 8; half >= 1; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    float scale = 1.0f / sqrtf(lanes[0] / (float)n + eps);
    for (i = 0; i < n; i++) y[i] = x[i] * scale * (offset + emu_from_bf16(weight[i]));
}

void emu_rope_angles(float *cosine, float *sine, uint32_t position, const float *inv_freq, int half, float factor)
{
    for (int i = 0; i < half; i++) {
        /* cos and sin in double: rounded to fp32 they are the same with every C library */
        double angle = (float)position * inv_freq[i];
        cosine[i] = (float)cos(angle) * factor;
        sine[i] = (float)sin(angle) * factor;
    }
}

void emu_rope_rotate(float *x, const float *cosine, const float *sine, int half)
{
    for (int i = 0; i < half; i++) {
        float low = x[i], high = x[i + half];
        x[i] = low * cosine[i] - high * sine[i];
        x[i + half] = high * cosine[i] + low * sine[i];
    }
}

void emu_matrix_rows(const emu_matrix *m, int first, int rows, const float *x, size_t ldx, int tokens, float *out,
    size_t ldo)
{
    size_t cols = (size_t)m->cols, size = m->scale ? 1 : 2;
    const void *w = (const char *)m->w + (size_t)first * cols * size;
    emu_math_kernels()->dot[m->scale ? EMU_INT8 : EMU_BF16](w, cols, rows, x, ldx, tokens, cols, out, ldo);
    for (int t = 0; m->scale && t < tokens; t++)
        for (int r = 0; r < rows; r++) out[(size_t)t * ldo + (size_t)r] *= m->scale[first + r];
}

typedef struct matmul_job {
    const emu_matrix *matrices;
    const float *x;
    float *out;
    size_t ldx, ldo;
    int tokens, block;
} matmul_job;

static int blocks(const matmul_job *job, int rows)
{
    return (rows + job->block - 1) / job->block;
}

static void matmul_item(void *context, int item, int worker)
{
    const matmul_job *job = context;
    const emu_matrix *m = job->matrices;
    int above = 0;
    (void)worker;
    for (; item >= blocks(job, m->rows); m++) {
        item -= blocks(job, m->rows);
        above += m->rows;
    }
    int first = item * job->block, rows = m->rows - first < job->block ? m->rows - first : job->block;
    emu_matrix_rows(m, first, rows, job->x, job->ldx, job->tokens, job->out + above + first, job->ldo);
}

void emu_matmul(const emu_matrix *matrices, int count, const float *x, size_t ldx, int tokens, float *out, size_t ldo)
{
    matmul_job job = {matrices, x, out, ldx, ldo, tokens, tokens > MANY ? BLOCK_ROWS_OF_MANY : BLOCK_ROWS};
    int items = 0;
    size_t work = 0;
    for (int i = 0; i < count; i++) {
        items += blocks(&job, matrices[i].rows);
        work += (size_t)matrices[i].rows * (size_t)matrices[i].cols * (size_t)tokens;
    }
    (work < SHARE_FROM ? emu_pool_run_alone : emu_pool_run)(matmul_item, &job, items);
}
