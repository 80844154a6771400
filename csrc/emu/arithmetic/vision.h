/* Vision encoders: a transformer over the patches of one picture of fixed size. One description serves all families. */
#ifndef AXPRESS_EMU_VISION_H
#define AXPRESS_EMU_VISION_H

#include "model_impl.h"

/* Checks the metadata of an encoder, fills what follows from it, and lists its tensors. Returns how many; or -1 with a
 * sentence in `wrong`. */
int emu_vision_check(emu_header *header, emu_wanted wanted[EMU_NUM_WEIGHTS], char wrong[EMU_ERR]);

/* Names, types and shapes of the input and the outputs of the one group. */
void emu_vision_tensors(emu_model *m);

static inline int emu_vision_patches(const emu_vision *v)
{
    return v->rows * v->cols;
}

/* Tokens that it gives: `merge` by `merge` patches become one. */
static inline int emu_vision_tokens(const emu_vision *v)
{
    return emu_vision_patches(v) / (v->merge * v->merge);
}

#endif
