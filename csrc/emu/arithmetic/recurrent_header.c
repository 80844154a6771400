/* What the metadata of a recurrent layer asks for. */
#include <stdarg.h>
#include <stdio.h>

#include "recurrent.h"

int emu_wrong(char wrong[EMU_ERR], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(wrong, EMU_ERR, format, arguments);
    va_end(arguments);
    return -1;
}

int emu_word(const char *name, const char *text, const char *const words[], char wrong[EMU_ERR])
{
    char all[64] = "";
    for (int i = 0; words[i]; i++) {
        if (!*text || strcmp(text, words[i]) == 0) return i;
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "", words[i]);
    }
    return emu_wrong(wrong, "%s \"%s\" is not one of %s", name, text, all);
}

static int check_words(emu_recurrence *states, char wrong[EMU_ERR])
{
    static const char *const orders[] = {"kv", "vk", NULL}, *const types[] = {"bf16", "fp32", "fp16", NULL};
    static const char *const paddings[] = {"exact", "spoils", NULL}, *const fresh[] = {"reads", "ignores", NULL};
    static const int type[] = {EMU_TYPE_BF16, EMU_TYPE_FP32, EMU_TYPE_FP16};
    int order = emu_word("state_order", states->state_order, orders, wrong), dtype, padding, p0;
    if (order < 0 || (dtype = emu_word("state_dtype", states->state_dtype, types, wrong)) < 0
        || (padding = emu_word("padding", states->padding, paddings, wrong)) < 0
        || (p0 = emu_word("p0_state", states->p0_state, fresh, wrong)) < 0)
        return -1;
    states->type = type[dtype];
    states->swapped = order == 1;
    states->spoils = padding == 1;
    states->p0_zero = p0 == 1;
    return 0;
}

static int check_sizes(const emu_model_info *i, char wrong[EMU_ERR])
{
    const struct { const char *name; int value; } needed[] = {{"conv_dim", i->conv_dim},
        {"conv_kernel", i->conv_kernel}, {"key_heads", i->key_heads}, {"value_heads", i->value_heads},
        {"key_dim", i->key_dim}, {"value_dim", i->value_dim}};
    if (!emu_is_qwen3_5(i)) return emu_wrong(wrong, "recurrent layers are of family qwen3_5_text, not %s", i->family);
    for (int k = 0; k < 6; k++)
        if (needed[k].value <= 0) return emu_wrong(wrong, "metadata %s is missing", needed[k].name);
    if (i->value_heads % i->key_heads != 0)
        return emu_wrong(wrong, "%d value heads cannot share %d key heads evenly", i->value_heads, i->key_heads);
    int channels = 2 * i->key_heads * i->key_dim + i->value_heads * i->value_dim;
    if (i->conv_dim == channels) return 0;
    return emu_wrong(wrong, "conv_dim is %d, keys, queries and values have %d", i->conv_dim, channels);
}

int emu_recurrent_check(emu_header *h, emu_wanted wanted[EMU_NUM_WEIGHTS], char wrong[EMU_ERR])
{
    const emu_model_info *i = &h->info;
    if (check_sizes(i, wrong) || check_words(&h->recurrence, wrong)) return -1;
    const uint64_t hidden = (uint64_t)i->hidden, heads = (uint64_t)i->value_heads, ffn = (uint64_t)i->ffn;
    const uint64_t values = heads * (uint64_t)i->value_dim, conv = (uint64_t)i->conv_dim;
    const emu_wanted all[] = {
        {EMU_W_QKV, true, conv, hidden}, {EMU_W_Z, true, values, hidden}, {EMU_W_B, true, heads, hidden},
        {EMU_W_A, true, heads, hidden}, {EMU_W_O, true, hidden, values}, {EMU_W_GATE, true, ffn, hidden},
        {EMU_W_UP, true, ffn, hidden}, {EMU_W_DOWN, true, hidden, ffn}, {EMU_W_INPUT_NORM, true, hidden, 0},
        {EMU_W_POST_NORM, true, hidden, 0}, {EMU_W_CONV, true, (uint64_t)i->conv_kernel, conv},
        {EMU_W_A_LOG, true, heads, 0}, {EMU_W_DT_BIAS, true, heads, 0},
        {EMU_W_STATE_NORM, true, (uint64_t)i->value_dim, 0}};
    memcpy(wanted, all, sizeof all);
    return sizeof all / sizeof *all;
}
