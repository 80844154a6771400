/* Number formats, the choice of kernels, matrix products over the thread pool, and the small per-token steps of a
 * layer. */
#ifndef AXPRESS_EMU_MATH_H
#define AXPRESS_EMU_MATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels.h"

typedef struct emu_matrix {
    const void *w;      /* [rows, cols], row-major; int8 where there is a scale, else bf16 */
    const float *scale; /* [rows], of the sums; or NULL */
    int rows, cols;
} emu_matrix;

/* The kernels in use. */
const emu_kernels *emu_math_kernels(void);

static inline float emu_from_bf16(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* Nearest, ties to even; every NaN becomes the same one (which NaN an operation makes differs between
 * architectures). */
static inline uint16_t emu_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Whether there is NaN or infinity among the bf16 words in n bytes. */
bool emu_has_nonfinite(const void *data, size_t n);
void emu_widen(float *out, const uint16_t *in, size_t n);
void emu_narrow(uint16_t *out, const float *in, size_t n);

/* y[i] = x[i] / sqrt(mean(x^2) + eps) * (offset + weight[i]); y may be x. The offset is 0, or 1 (Gemma). */
void emu_rmsnorm(float *y, const float *x, const uint16_t *weight, size_t n, float eps, float offset);

/* cosine[i], sine[i] of position * inv_freq[i] (the product in fp32, as Hugging Face does), times factor; half
 * entries. */
void emu_rope_angles(float *cosine, float *sine, uint32_t position, const float *inv_freq, int half, float factor);
/* Rotates one head in place, half-split form: x[i], x[i + half]. */
void emu_rope_rotate(float *x, const float *cosine, const float *sine, int half);

/* out[t * ldo + r] = row (first + r) of the matrix times x[t], for r < rows and t < tokens; the x lie ldx floats
 * apart. */
void emu_matrix_rows(const emu_matrix *m, int first, int rows, const float *x, size_t ldx, int tokens, float *out,
    size_t ldo);

/* out[t * ldo + (rows of the matrices one after the other)] = matrices @ x[t] for t < tokens, by all threads. All
 * matrices have the same number of columns. */
void emu_matmul(const emu_matrix *matrices, int count, const float *x, size_t ldx, int tokens, float *out, size_t ldo);

/* Temporary memory for one execute, 64-byte aligned, contents undefined; NULL when out of memory. Blocks are kept for
 * reuse until emu_scratch_clear. */
void *emu_scratch_take(size_t bytes);
void emu_scratch_give(void *block);
void emu_scratch_clear(void);

#endif
