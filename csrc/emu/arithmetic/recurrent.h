/* The gated delta rule with a causal convolution before it: what a recurrent layer has in attention's place.
 *
 * Token by token, in order: the newest channels and the conv_kernel - 1 before them are convolved (channel by channel,
 * oldest first) and pass through SiLU; q and k are normalised; each value head's state S [key_dim][value_dim] decays,
 * learns the token's value under its key, and is asked with q (kernels.h, delta). After every token both states are
 * rounded to their type, within a chunk, too: however tokens are split into executes, their bits are the same.
 */
#ifndef AXPRESS_EMU_RECURRENT_H
#define AXPRESS_EMU_RECURRENT_H

#include "model_impl.h"

typedef struct emu_recurrent {
    const emu_model *m;
    int tokens;
    bool fresh;            /* the states before are zeros, whatever the input says */
    const bool *live;      /* [tokens]; others change no state and give zeros */
    const void *conv_in, *state_in;
    void *conv_out, *state_out;
    float *projected;      /* [tokens][emu_recurrent_width]: q, k, v, z, b, a; used up */
    float *mixed;          /* [tokens][value_heads * value_dim]: the result */
    float *columns;        /* [conv_kernel - 1 + tokens][conv_dim] */
    float *ones;           /* [conv_dim] */
    float *rates;          /* [tokens][2 * value_heads]: decay, beta */
    float *state;          /* [value_heads][key_dim][value_dim] */
} emu_recurrent;

/* recurrent_header.c: checks what the metadata says of states and sizes, reads its words and fills `wanted` with the
 * tensors of such a layer: their number, or -1 with a sentence. */
int emu_recurrent_check(emu_header *header, emu_wanted wanted[EMU_NUM_WEIGHTS], char wrong[EMU_ERR]);
/* A sentence about metadata, into `wrong`; -1. */
int emu_wrong(char wrong[EMU_ERR], const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One of the words (NULL ends them), the first where nothing is said; its number, or -1 with a sentence. */
int emu_word(const char *name, const char *text, const char *const words[], char wrong[EMU_ERR]);

/* Elements of a token in `projected`. */
size_t emu_recurrent_width(const emu_model_info *info);
/* Elements of the buffers that are not per token: columns, ones and state. */
size_t emu_recurrent_columns(const emu_model_info *info, int tokens);
size_t emu_recurrent_state(const emu_model_info *info);
/* Computes `mixed`, and in `columns` and `state` what emu_recurrent_write then puts out: outputs may be inputs. */
void emu_recurrent_mix(emu_recurrent *r);
void emu_recurrent_write(const emu_recurrent *r);

#endif
