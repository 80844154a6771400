/* AVX2 + FMA primitives for kernels.inc: 16 lanes are two registers, lanes 0-7 and 8-15. */
#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
typedef struct { __m256 a, b; } v16;
typedef struct { __m256i a, b; } raw32;
typedef struct { __m256d a, b; } v8d;

#define EACH(type, op, x, y) ((type){op((x).a, (y).a), op((x).b, (y).b)})
INLINE v16 v16_set(float a) { return (v16){_mm256_set1_ps(a), _mm256_set1_ps(a)}; }
INLINE v16 v16_zero(void) { return v16_set(0.0f); }
INLINE v16 v16_load(const float *p) { return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void v16_store(float *p, v16 x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
INLINE v16 v16_fma(v16 x, v16 y, v16 z)
{
    return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
INLINE v16 v16_add(v16 x, v16 y) { return EACH(v16, _mm256_add_ps, x, y); }
INLINE v16 v16_sub(v16 x, v16 y) { return EACH(v16, _mm256_sub_ps, x, y); }
INLINE v16 v16_mul(v16 x, v16 y) { return EACH(v16, _mm256_mul_ps, x, y); }
INLINE v16 v16_div(v16 x, v16 y) { return EACH(v16, _mm256_div_ps, x, y); }
INLINE v16 v16_max(v16 x, v16 y) { return EACH(v16, _mm256_max_ps, x, y); }
INLINE v16 v16_min(v16 x, v16 y) { return EACH(v16, _mm256_min_ps, x, y); }
INLINE __m256 round8(__m256 x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE v16 v16_round(v16 x) { return (v16){round8(x.a), round8(x.b)}; }
INLINE __m256 pow2_8(__m256 z)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(z), _mm256_set1_epi32(127)), 23));
}
INLINE v16 v16_pow2(v16 z) { return (v16){pow2_8(z.a), pow2_8(z.b)}; }
INLINE __m256 widen8(const uint16_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
INLINE v16 v16_widen(const uint16_t *p) { return (v16){widen8(p), widen8(p + 8)}; }
INLINE __m256 widen8_8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
INLINE v16 v16_widen8(const int8_t *p) { return (v16){widen8_8(p), widen8_8(p + 8)}; }
INLINE float v16_sum(v16 x)
{
    __m256 b = _mm256_add_ps(x.a, x.b);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}

INLINE __m256i load256(const uint16_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE raw32 raw32_load(const uint16_t *p) { return (raw32){load256(p), load256(p + 16)}; }
INLINE void raw32_store(uint16_t *p, raw32 x)
{
    _mm256_storeu_si256((__m256i *)p, x.a);
    _mm256_storeu_si256((__m256i *)(p + 16), x.b);
}
INLINE raw32 raw32_max_magnitude(raw32 x, raw32 y)
{
    __m256i magnitude = _mm256_set1_epi16(0x7fff);
    return (raw32){_mm256_max_epu16(x.a, _mm256_and_si256(y.a, magnitude)),
        _mm256_max_epu16(x.b, _mm256_and_si256(y.b, magnitude))};
}

INLINE v8d v8d_set(double a) { return (v8d){_mm256_set1_pd(a), _mm256_set1_pd(a)}; }
INLINE v8d v8d_load(const double *p) { return (v8d){_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)}; }
INLINE void v8d_store(double *p, v8d x) { _mm256_storeu_pd(p, x.a), _mm256_storeu_pd(p + 4, x.b); }
INLINE v8d v8d_add(v8d x, v8d y) { return EACH(v8d, _mm256_add_pd, x, y); }
INLINE v8d v8d_sub(v8d x, v8d y) { return EACH(v8d, _mm256_sub_pd, x, y); }
INLINE v8d v8d_fma(v8d x, v8d y, v8d z)
{
    return (v8d){_mm256_fmadd_pd(x.a, y.a, z.a), _mm256_fmadd_pd(x.b, y.b, z.b)};
}
INLINE v8d v8d_widen(const uint16_t *p)
{
    __m256 x = widen8(p);
    return (v8d){_mm256_cvtps_pd(_mm256_castps256_ps128(x)), _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1))};
}

#define TILE_ROWS 2
#define TILE_COLS 3
#define LONE_ROWS 4
#define KERNELS_NAME "avx2"
#define KERNELS_TABLE emu_kernels_avx2
#include "kernels.inc"

#else
const emu_kernels *emu_kernels_avx2(void) { return 0; }
#endif
