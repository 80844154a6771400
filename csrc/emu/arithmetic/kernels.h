/* The arithmetic that is worth vectorising, as a table of functions per instruction set.
 *
 * Every table gives the same bits. That is possible because each result has one canonical definition:
 *   - dot product: 16 fp32 lanes; lane j takes elements j, j + 16, j + 32 ... with fused multiply-add; lanes are summed
 *     as i + (i+8), i + (i+4), i + (i+2), i + (i+1). A tail is padded with zeros. int8 weights become floats first; the
 *     scale of their row multiplies the sum.
 *   - exp: one polynomial, evaluated with the same fused operations everywhere.
 *   - attention: exact sums (see attention.c), so their order does not matter.
 * kernels.inc holds the algorithms, kernels_<isa>.c the vector primitives. Nothing here relies on the compiler
 * contracting a*b+c.
 */
#ifndef AXPRESS_EMU_KERNELS_H
#define AXPRESS_EMU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define EMU_P_ONE 16777216.0f /* softmax weights are integers, 1.0 = 2^24 */

enum { EMU_BF16, EMU_INT8 }; /* types of weights */

typedef struct emu_kernels {
    const char *name;

    /* By the type of the weights: out[c * ldo + r] = dot(w + r * ldw, x + c * ldx) over k elements. */
    void (*dot[2])(const void *w, size_t ldw, int rows, const float *x, size_t ldx, int cols, size_t k, float *out,
        size_t ldo);

    /* The largest of n bf16 values, NaN left out; -infinity where there is none. */
    float (*largest)(const uint16_t *mask, int n);

    /* s[i] = s[i] * scale + mask[i], two roundings; mask bf16. Returns the largest (unspecified where any is NaN).
     * n >= 1. */
    float (*score)(float *s, const uint16_t *mask, int n, float scale);

    /* s[i] = round(2^24 * exp(s[i] - max)), an integer in a float. Returns their exact sum, NaN if any s[i] - max is
     * NaN. */
    double (*weights)(float *s, int n, float max);

    /* most[d] = max(most[d], v[r][d] without sign) over rows, as integers. */
    void (*magnitude)(uint16_t *most, const uint16_t *v, size_t ldv, int rows, int dims);

    /* acc[h * dims + d] += p[h * ldp + r] * rounded(v[r][d]); rounded(a) = (a + magic[d]) - magic[d] in double. */
    void (*accumulate)(double *acc, int heads, const float *p, size_t ldp, const uint16_t *v, size_t ldv, int rows,
        const double *magic, int dims);

    /* gate[i] = silu(gate[i]) * up[i] */
    void (*swiglu)(float *gate, const float *up, size_t n);

    /* gate[i] = gelu(gate[i]) * up[i], gelu by its tanh formula */
    void (*geglu)(float *gate, const float *up, size_t n);

    /* A token of the gated delta rule, on one head's state s [keys][values]: s *= decay; d = (v - s'k) * beta; s += k d';
     * out = s'q. A column's sums run over the keys in their order, by fused multiply-add. */
    void (*delta)(float *s, int keys, int values, const float *k, const float *q, const float *v, float decay,
        float beta, float *out);

    /* y[i] = exp(x[i]), relative error below 2^-22, arguments clamped to [-87, 88]. */
    void (*exponential)(float *y, const float *x, size_t n);
} emu_kernels;

/* NULL where the build's architecture lacks the instruction set (the CPU is asked in math.c). */
const emu_kernels *emu_kernels_scalar(void);
const emu_kernels *emu_kernels_avx2(void);
const emu_kernels *emu_kernels_avx512(void);
const emu_kernels *emu_kernels_neon(void);

#endif
