/* AVX-512 primitives (F, BW, VL, DQ) for kernels.inc. */
#include "kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
typedef __m512 v16;
typedef __m512i raw32;
typedef __m512d v8d;

INLINE v16 v16_zero(void) { return _mm512_setzero_ps(); }
INLINE v16 v16_set(float a) { return _mm512_set1_ps(a); }
INLINE v16 v16_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v16_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
INLINE v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
INLINE v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
INLINE v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
INLINE v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
INLINE v16 v16_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
INLINE v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
INLINE v16 v16_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
INLINE v16 v16_round(v16 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE v16 v16_pow2(v16 z)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_castps_si512(z), _mm512_set1_epi32(127)), 23));
}
INLINE v16 v16_widen(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INLINE v16 v16_widen8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
INLINE float v16_sum(v16 a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
/* Lanes of four vectors meet as in v16_sum. */
#define V16_SUM4
INLINE void v16_sum4(const v16 *a, float *out)
{
    v16 ab = v16_add(_mm512_shuffle_f32x4(a[0], a[1], 0x44), _mm512_shuffle_f32x4(a[0], a[1], 0xee));
    v16 cd = v16_add(_mm512_shuffle_f32x4(a[2], a[3], 0x44), _mm512_shuffle_f32x4(a[2], a[3], 0xee));
    v16 x = v16_add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    x = v16_add(x, _mm512_shuffle_ps(x, x, 0x4e));
    x = v16_add(x, _mm512_shuffle_ps(x, x, 0xb1));
    const __m512i firsts = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, x)));
}

INLINE raw32 raw32_load(const uint16_t *p) { return _mm512_loadu_si512(p); }
INLINE void raw32_store(uint16_t *p, raw32 a) { _mm512_storeu_si512(p, a); }
INLINE raw32 raw32_max_magnitude(raw32 a, raw32 b)
{
    return _mm512_max_epu16(a, _mm512_and_si512(b, _mm512_set1_epi16(0x7fff)));
}

INLINE v8d v8d_set(double a) { return _mm512_set1_pd(a); }
INLINE v8d v8d_load(const double *p) { return _mm512_loadu_pd(p); }
INLINE void v8d_store(double *p, v8d a) { _mm512_storeu_pd(p, a); }
INLINE v8d v8d_add(v8d a, v8d b) { return _mm512_add_pd(a, b); }
INLINE v8d v8d_sub(v8d a, v8d b) { return _mm512_sub_pd(a, b); }
INLINE v8d v8d_fma(v8d a, v8d b, v8d c) { return _mm512_fmadd_pd(a, b, c); }
INLINE v8d v8d_widen(const uint16_t *p)
{
    __m256i bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16);
    return _mm512_cvtps_pd(_mm256_castsi256_ps(bits));
}

#define TILE_ROWS 4
#define TILE_COLS 6
#define LONE_ROWS 4
#define KERNELS_NAME "avx512"
#define KERNELS_TABLE emu_kernels_avx512
#include "kernels.inc"

#else
const emu_kernels *emu_kernels_avx512(void) { return 0; }
#endif
