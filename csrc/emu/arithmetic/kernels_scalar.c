/* Portable primitives for kernels.inc: the definition that the vector versions must match bit for bit. */
#include "kernels.h"

#include <math.h>
#include <string.h>

/* Nothing unrolled, and nothing inlined under sanitizers: the compiler would be busy with their checks for a quarter of
 * an hour. */
#ifdef __SANITIZE_ADDRESS__
#define INLINE static __attribute__((noinline))
#else
#define INLINE static inline
#endif
#define UNROLL
typedef struct { float at[16]; } v16;
typedef struct { uint16_t at[32]; } raw32;
typedef struct { double at[8]; } v8d;

INLINE float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
INLINE uint32_t to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

#define LANES(type, n, expression)                    \
    do {                                              \
        type result_;                                 \
        for (int i = 0; i < (n); i++) result_.at[i] = (expression); \
        return result_;                               \
    } while (0)

INLINE v16 v16_set(float a) { LANES(v16, 16, a); }
INLINE v16 v16_zero(void) { return v16_set(0.0f); }
INLINE v16 v16_load(const float *p) { LANES(v16, 16, p[i]); }
INLINE void v16_store(float *p, v16 x) { memcpy(p, x.at, sizeof x.at); }
INLINE v16 v16_fma(v16 x, v16 y, v16 z) { LANES(v16, 16, fmaf(x.at[i], y.at[i], z.at[i])); }
INLINE v16 v16_add(v16 x, v16 y) { LANES(v16, 16, x.at[i] + y.at[i]); }
INLINE v16 v16_sub(v16 x, v16 y) { LANES(v16, 16, x.at[i] - y.at[i]); }
INLINE v16 v16_mul(v16 x, v16 y) { LANES(v16, 16, x.at[i] * y.at[i]); }
INLINE v16 v16_div(v16 x, v16 y) { LANES(v16, 16, x.at[i] / y.at[i]); }
INLINE v16 v16_max(v16 x, v16 y) { LANES(v16, 16, x.at[i] > y.at[i] ? x.at[i] : y.at[i]); }
INLINE v16 v16_min(v16 x, v16 y) { LANES(v16, 16, x.at[i] < y.at[i] ? x.at[i] : y.at[i]); }
INLINE v16 v16_round(v16 x) { LANES(v16, 16, rintf(x.at[i])); }
INLINE v16 v16_pow2(v16 z) { LANES(v16, 16, from_bits((to_bits(z.at[i]) + 127u) << 23)); }
INLINE v16 v16_widen(const uint16_t *p) { LANES(v16, 16, from_bits((uint32_t)p[i] << 16)); }
INLINE v16 v16_widen8(const int8_t *p) { LANES(v16, 16, (float)p[i]); }
INLINE float v16_sum(v16 x)
{
    for (int half = 8; half >= 1; half /= 2)
        for (int i = 0; i < half; i++) x.at[i] += x.at[i + half];
    return x.at[0];
}

INLINE raw32 raw32_load(const uint16_t *p) { LANES(raw32, 32, p[i]); }
INLINE void raw32_store(uint16_t *p, raw32 x) { memcpy(p, x.at, sizeof x.at); }
INLINE uint16_t larger(uint16_t a, uint16_t b) { return a > b ? a : b; }
INLINE raw32 raw32_max_magnitude(raw32 x, raw32 y) { LANES(raw32, 32, larger(x.at[i], y.at[i] & 0x7fff)); }

INLINE v8d v8d_set(double a) { LANES(v8d, 8, a); }
INLINE v8d v8d_load(const double *p) { LANES(v8d, 8, p[i]); }
INLINE void v8d_store(double *p, v8d x) { memcpy(p, x.at, sizeof x.at); }
INLINE v8d v8d_add(v8d x, v8d y) { LANES(v8d, 8, x.at[i] + y.at[i]); }
INLINE v8d v8d_sub(v8d x, v8d y) { LANES(v8d, 8, x.at[i] - y.at[i]); }
/* product and sum are exact here */
INLINE v8d v8d_fma(v8d x, v8d y, v8d z) { LANES(v8d, 8, x.at[i] * y.at[i] + z.at[i]); }
INLINE v8d v8d_widen(const uint16_t *p) { LANES(v8d, 8, (double)from_bits((uint32_t)p[i] << 16)); }

#define TILE_ROWS 1
#define TILE_COLS 2
#define LONE_ROWS 1
#define KERNELS_NAME "scalar"
#define KERNELS_TABLE emu_kernels_scalar
#include "kernels.inc"
