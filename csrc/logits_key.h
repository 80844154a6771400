/* Keys of logits: integers that order as the logits do. Shared by logits.c and logits_group.c. */
#ifndef AX_LOGITS_KEY_H
#define AX_LOGITS_KEY_H

#include <math.h>
#include <string.h>

#include "logits.h"

#define AX_INLINE static inline __attribute__((always_inline))

/* A key orders like its logit, as a signed integer: negative floats have their magnitude bits flipped. -0 is -1, +0
 * is 0. */
#define BF16_INF 0x7f80
#define F32_INF 0x7f800000

AX_INLINE int16_t key_of_bf16(uint16_t bits) {
    int16_t s = (int16_t)bits;
    return (int16_t)(s ^ ((s >> 15) & 0x7fff));
}

AX_INLINE int32_t key_of_f32(uint32_t bits) {
    int32_t s = (int32_t)bits;
    return s ^ ((s >> 31) & 0x7fffffff);
}

AX_INLINE double value_of_bits(uint32_t f32_bits) {
    float value;
    memcpy(&value, &f32_bits, sizeof value);
    return value;
}

AX_INLINE double value_of_key(ax_dtype dtype, int32_t key) {
    if (dtype == AX_BF16) return value_of_bits((uint32_t)(uint16_t)key_of_bf16((uint16_t)key) << 16);
    return value_of_bits((uint32_t)key_of_f32((uint32_t)key));
}

/* The key of `value`, rounded to float and then, for bf16, towards zero. */
AX_INLINE int32_t key_of_value(ax_dtype dtype, double value) {
    float single = (float)value;
    uint32_t bits;
    memcpy(&bits, &single, sizeof bits);
    return dtype == AX_BF16 ? key_of_bf16((uint16_t)(bits >> 16)) : key_of_f32(bits);
}

/* The lowest key of tokens with value >= `cut`: +0 includes -0; -inf means all finite ones. */
AX_INLINE int32_t lowest_key(ax_dtype dtype, double cut) {
    int32_t key = key_of_value(dtype, cut);
    if (cut == -INFINITY) return key + 1;
    return key == 0 ? -1 : key;
}

AX_INLINE uint32_t bits_at(const ax_logits *logits, uint32_t token) {
    if (logits->dtype == AX_BF16) return (uint32_t)((const uint16_t *)logits->data)[token] << 16;
    uint32_t bits;
    memcpy(&bits, (const float *)logits->data + token, sizeof bits);
    return bits;
}

AX_INLINE int32_t key_at(const ax_logits *logits, uint32_t token) {
    if (logits->dtype == AX_BF16) return key_of_bf16(((const uint16_t *)logits->data)[token]);
    return key_of_f32(bits_at(logits, token));
}

AX_INLINE uint32_t block_end(uint32_t vocab, uint32_t block) {
    uint32_t end = (block + 1) * AX_BLOCK;
    return end < vocab ? end : vocab;
}

#endif
