#include "image_rows.h"

#include <string.h>

static float from_bf16(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u); /* NaN stays NaN */
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

void ax_add_rows(uint16_t *hidden, size_t width, const int32_t *rows, const float *added, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint16_t *row = hidden + (size_t)rows[i] * width;
        for (size_t j = 0; j < width; j++) row[j] = to_bf16(from_bf16(row[j]) + added[i * width + j]);
    }
}
