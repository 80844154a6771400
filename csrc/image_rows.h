/* Rows that a vision encoder gives, in the hidden state of a pass. */
#ifndef AX_IMAGE_ROWS_H
#define AX_IMAGE_ROWS_H

#include <stddef.h>
#include <stdint.h>

/* hidden [any, width] bf16 += added [count, width] fp32, row i of it to row `rows[i]`: summed in fp32, rounded once to
 * the nearest bf16, halves to even. */
void ax_add_rows(uint16_t *hidden, size_t width, const int32_t *rows, const float *added, size_t count);

#endif
