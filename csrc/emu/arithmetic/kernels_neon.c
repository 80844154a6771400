/* AArch64 NEON primitives for kernels.inc: 16 lanes are four registers. Little-endian only. */
#include "kernels.h"

#if defined(__aarch64__) && defined(__ARM_NEON) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#include <arm_neon.h>

#define INLINE static inline __attribute__((always_inline))
typedef struct { float32x4_t at[4]; } v16;
typedef struct { uint32x4_t at[4]; } raw32;
typedef struct { float64x2_t at[4]; } v8d;

#define FOUR(type, expression)                                          \
    do {                                                                \
        type result_;                                                   \
        _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) result_.at[i] = (expression); \
        return result_;                                                 \
    } while (0)

INLINE v16 v16_set(float a) { FOUR(v16, vdupq_n_f32(a)); }
INLINE v16 v16_zero(void) { return v16_set(0.0f); }
INLINE v16 v16_load(const float *p) { FOUR(v16, vld1q_f32(p + 4 * i)); }
INLINE void v16_store(float *p, v16 x)
{
    for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, x.at[i]);
}
INLINE v16 v16_fma(v16 x, v16 y, v16 z) { FOUR(v16, vfmaq_f32(z.at[i], x.at[i], y.at[i])); }
INLINE v16 v16_add(v16 x, v16 y) { FOUR(v16, vaddq_f32(x.at[i], y.at[i])); }
INLINE v16 v16_sub(v16 x, v16 y) { FOUR(v16, vsubq_f32(x.at[i], y.at[i])); }
INLINE v16 v16_mul(v16 x, v16 y) { FOUR(v16, vmulq_f32(x.at[i], y.at[i])); }
INLINE v16 v16_div(v16 x, v16 y) { FOUR(v16, vdivq_f32(x.at[i], y.at[i])); }
INLINE v16 v16_max(v16 x, v16 y) { FOUR(v16, vbslq_f32(vcgtq_f32(x.at[i], y.at[i]), x.at[i], y.at[i])); }
INLINE v16 v16_min(v16 x, v16 y) { FOUR(v16, vbslq_f32(vcltq_f32(x.at[i], y.at[i]), x.at[i], y.at[i])); }
INLINE v16 v16_round(v16 x) { FOUR(v16, vrndnq_f32(x.at[i])); }
INLINE v16 v16_pow2(v16 z)
{
    FOUR(v16, vreinterpretq_f32_u32(vshlq_n_u32(vaddq_u32(vreinterpretq_u32_f32(z.at[i]), vdupq_n_u32(127)), 23)));
}
INLINE float32x4_t widen4(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
INLINE v16 v16_widen(const uint16_t *p) { FOUR(v16, widen4(p + 4 * i)); }
INLINE v16 v16_widen8(const int8_t *p)
{
    int8x16_t all = vld1q_s8(p);
    int16x8_t low = vmovl_s8(vget_low_s8(all)), high = vmovl_high_s8(all);
    return (v16){{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
        vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
}
INLINE float v16_sum(v16 x)
{
    float32x4_t c = vaddq_f32(vaddq_f32(x.at[0], x.at[2]), vaddq_f32(x.at[1], x.at[3]));
    float32x2_t d = vadd_f32(vget_low_f32(c), vget_high_f32(c));
    return vget_lane_f32(d, 0) + vget_lane_f32(d, 1);
}

INLINE raw32 raw32_load(const uint16_t *p) { FOUR(raw32, vreinterpretq_u32_u16(vld1q_u16(p + 8 * i))); }
INLINE void raw32_store(uint16_t *p, raw32 x)
{
    for (int i = 0; i < 4; i++) vst1q_u16(p + 8 * i, vreinterpretq_u16_u32(x.at[i]));
}
INLINE uint32x4_t larger8(uint32x4_t x, uint32x4_t y)
{
    return vreinterpretq_u32_u16(vmaxq_u16(vreinterpretq_u16_u32(x),
        vandq_u16(vreinterpretq_u16_u32(y), vdupq_n_u16(0x7fff))));
}
INLINE raw32 raw32_max_magnitude(raw32 x, raw32 y) { FOUR(raw32, larger8(x.at[i], y.at[i])); }

INLINE v8d v8d_set(double a) { FOUR(v8d, vdupq_n_f64(a)); }
INLINE v8d v8d_load(const double *p) { FOUR(v8d, vld1q_f64(p + 2 * i)); }
INLINE void v8d_store(double *p, v8d x)
{
    for (int i = 0; i < 4; i++) vst1q_f64(p + 2 * i, x.at[i]);
}
INLINE v8d v8d_add(v8d x, v8d y) { FOUR(v8d, vaddq_f64(x.at[i], y.at[i])); }
INLINE v8d v8d_sub(v8d x, v8d y) { FOUR(v8d, vsubq_f64(x.at[i], y.at[i])); }
INLINE v8d v8d_fma(v8d x, v8d y, v8d z) { FOUR(v8d, vfmaq_f64(z.at[i], x.at[i], y.at[i])); }
INLINE v8d v8d_widen(const uint16_t *p)
{
    float32x4_t low = widen4(p), high = widen4(p + 4);
    return (v8d){{vcvt_f64_f32(vget_low_f32(low)), vcvt_high_f64_f32(low), vcvt_f64_f32(vget_low_f32(high)),
        vcvt_high_f64_f32(high)}};
}

#define TILE_ROWS 2
#define TILE_COLS 3
#define LONE_ROWS 4
#define KERNELS_NAME "neon"
#define KERNELS_TABLE emu_kernels_neon
#include "kernels.inc"

#else
const emu_kernels *emu_kernels_neon(void) { return 0; }
#endif
