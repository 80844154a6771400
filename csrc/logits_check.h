/* Whether logits that a card gave can be believed: no NaN, no +inf, not all the same. -inf is what a token gets that a
 * head does not have. */
#ifndef AX_LOGITS_CHECK_H
#define AX_LOGITS_CHECK_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline int ax_believable_bf16(const uint16_t *logits, size_t count)
{
    uint16_t bad = 0, different = count < 2;
    for (size_t i = 0; i < count; i++) {
        different |= (uint16_t)(logits[i] ^ logits[0]);
        bad |= (uint16_t)((uint16_t)(logits[i] & 0x7fff) > 0x7f80) | (uint16_t)(logits[i] == 0x7f80);
    }
    return !bad && different;
}

static inline int ax_believable_f32(const float *logits, size_t count)
{
    uint32_t bad = 0, different = count < 2, first, bits;
    memcpy(&first, logits, sizeof first);
    for (size_t i = 0; i < count; i++) {
        memcpy(&bits, logits + i, sizeof bits);
        different |= bits ^ first;
        bad |= (uint32_t)((bits & 0x7fffffffu) > 0x7f800000u) | (uint32_t)(bits == 0x7f800000u);
    }
    return !bad && different;
}

#endif
