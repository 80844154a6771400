/* What the metadata of a vision encoder asks for, and its input and outputs. */
#include <stdio.h>

#include "recurrent.h"
#include "vision.h"

static int check_words(emu_vision *v, char wrong[EMU_ERR])
{
    static const char *const inputs[] = {"patches_u8", "image_u8", "planes_fp32", NULL};
    static const char *const norms[] = {"layer", "rms", NULL}, *const mergers[] = {"none", "token", "group", NULL};
    static const char *const activations[] = {"gelu", "gelu_tanh", "silu", NULL};
    int input = emu_word("vision_input", v->input, inputs, wrong), norm, activation, merger;
    if (input < 0 || (norm = emu_word("norm", v->norm, norms, wrong)) < 0
        || (activation = emu_word("activation", v->act, activations, wrong)) < 0
        || (merger = emu_word("merger_norm", v->merger_norm, mergers, wrong)) < 0)
        return -1;
    v->pixels = (emu_pixels)input;
    v->rms = norm == 1;
    v->activation = (emu_activation)activation;
    v->merge_norm = (emu_merge_norm)merger;
    return 0;
}

/* Block numbers must be of blocks that there are, ascending. */
static int check_blocks(const emu_list *list, const char *key, int depth, char wrong[EMU_ERR])
{
    for (int i = 0; i < list->count; i++)
        if (list->at[i] >= depth || (i && list->at[i] <= list->at[i - 1]))
            return emu_wrong(wrong, "%s are not ascending numbers of the %d blocks", key, depth);
    return 0;
}

static int check_sizes(const emu_header *h, char wrong[EMU_ERR])
{
    const emu_model_info *i = &h->info;
    const emu_vision *v = &h->vision;
    const struct { const char *name; int value; } needed[] = {{"layers", i->layers}, {"hidden", i->hidden},
        {"heads", i->heads}, {"head_dim", i->head_dim}, {"ffn", i->ffn}, {"image_rows", v->rows},
        {"image_cols", v->cols}, {"patch_size", v->patch}, {"out_hidden", v->out}};
    for (int k = 0; k < 9; k++)
        if (needed[k].value <= 0) return emu_wrong(wrong, "metadata %s is missing", needed[k].name);
    if (v->rows % v->merge || v->cols % v->merge)
        return emu_wrong(wrong, "%d x %d patches cannot be merged %d by %d", v->rows, v->cols, v->merge, v->merge);
    if (h->tensors[EMU_W_INV_FREQ].present && i->head_dim % 4)
        return emu_wrong(wrong, "head_dim %d cannot turn by rows and columns", i->head_dim);
    if (h->tensors[EMU_W_CLASS].present && (v->window || h->tensors[EMU_W_INV_FREQ].present))
        return emu_wrong(wrong, "a class token has no place for windows or angles");
    if (v->pixels == EMU_PATCHES_U8 && v->frames != 2)
        return emu_wrong(wrong, "patches hold 2 frames, not %d", v->frames);
    if (v->pixels != EMU_PLANES_FP32 && (v->mean.count != 3 || v->std.count != 3))
        return emu_wrong(wrong, "pixel_mean and pixel_std need 3 numbers each");
    if (v->deep.count >= EMU_MAX_TENSORS)
        return emu_wrong(wrong, "deepstack has more than %d blocks", EMU_MAX_TENSORS - 1);
    if (check_blocks(&v->full, "full_blocks", i->layers, wrong)) return -1;
    return check_blocks(&v->deep, "deepstack", i->layers, wrong);
}

int emu_vision_check(emu_header *h, emu_wanted wanted[EMU_NUM_WEIGHTS], char wrong[EMU_ERR])
{
    emu_vision *v = &h->vision;
    if (check_words(v, wrong) || check_sizes(h, wrong)) return -1;
    memcpy(h->info.family, v->kind, sizeof h->info.family);
    const uint64_t blocks = (uint64_t)h->info.layers, hidden = (uint64_t)h->info.hidden, ffn = (uint64_t)h->info.ffn;
    const uint64_t width = (uint64_t)(h->info.heads * h->info.head_dim), deep = (uint64_t)v->deep.count;
    const uint64_t group = hidden * (uint64_t)(v->merge * v->merge), mergers = 1 + deep, out = (uint64_t)v->out;
    const uint64_t pixels = 3 * (uint64_t)(v->frames * v->patch * v->patch), mid = v->mid ? (uint64_t)v->mid : group;
    const uint64_t normed = v->merge_norm == EMU_NORM_TOKEN ? hidden : group;
    const bool layer = !v->rms, gated = h->tensors[EMU_W_GATE].present;
    const emu_wanted all[] = {
        {EMU_W_PATCH, true, hidden, pixels}, {EMU_W_Q, true, blocks * width, hidden},
        {EMU_W_K, true, blocks * width, hidden}, {EMU_W_V, true, blocks * width, hidden},
        {EMU_W_O, true, blocks * hidden, width}, {EMU_W_UP, true, blocks * ffn, hidden},
        {EMU_W_DOWN, true, blocks * hidden, ffn}, {EMU_W_GATE, gated, blocks * ffn, hidden},
        {EMU_W_MERGE_IN, v->mid > 0, mergers * mid, group}, {EMU_W_MERGE_OUT, true, mergers * out, mid},
        {EMU_W_PATCH_BIAS, false, hidden, 0}, {EMU_W_CLASS, false, hidden, 0},
        {EMU_W_POSITIONS, false, (uint64_t)emu_vision_patches(v), hidden},
        {EMU_W_INPUT_NORM, true, blocks, hidden}, {EMU_W_POST_NORM, true, blocks, hidden},
        {EMU_W_INPUT_NORM_BIAS, layer, blocks, hidden}, {EMU_W_POST_NORM_BIAS, layer, blocks, hidden},
        {EMU_W_Q_BIAS, false, blocks, width}, {EMU_W_K_BIAS, false, blocks, width},
        {EMU_W_V_BIAS, false, blocks, width}, {EMU_W_O_BIAS, false, blocks, hidden},
        {EMU_W_GATE_BIAS, false, blocks, ffn}, {EMU_W_UP_BIAS, false, blocks, ffn},
        {EMU_W_DOWN_BIAS, false, blocks, hidden}, {EMU_W_ATTENTION_SCALE, false, blocks, hidden},
        {EMU_W_FFN_SCALE, false, blocks, hidden}, {EMU_W_INV_FREQ, false, (uint64_t)h->info.head_dim / 4, 0},
        {EMU_W_NORM, false, hidden, 0}, {EMU_W_NORM_BIAS, layer && h->tensors[EMU_W_NORM].present, hidden, 0},
        {EMU_W_MERGE_NORM, v->merge_norm != EMU_NORM_NONE, normed, 0},
        {EMU_W_MERGE_NORM_BIAS, layer && v->merge_norm != EMU_NORM_NONE, normed, 0},
        {EMU_W_DEEP_NORM, deep > 0, deep, group}, {EMU_W_DEEP_NORM_BIAS, layer && deep > 0, deep, group},
        {EMU_W_MERGE_IN_BIAS, false, mergers, mid}, {EMU_W_MERGE_OUT_BIAS, false, mergers, out}};
    memcpy(wanted, all, sizeof all);
    return sizeof all / sizeof *all;
}

/* Shape [1, dims...] of elements of so many bytes. */
static emu_tensor_shape shape(int a, int b, int c, unsigned element)
{
    emu_tensor_shape s = {.ndims = c ? 4 : 3, .dims = {1, a, b, c}};
    s.bytes = (uint64_t)a * (uint64_t)b * (uint64_t)(c ? c : 1) * element;
    return s;
}

void emu_vision_tensors(emu_model *m)
{
    const emu_vision *v = &m->vision;
    int height = v->rows * v->patch, width = v->cols * v->patch, tokens = emu_vision_tokens(v);
    emu_tensor *input = &m->inputs[0];
    snprintf(input->name, sizeof input->name, "%s", v->pixels == EMU_PATCHES_U8 ? "hidden_states" : "pixel_values");
    input->type = v->pixels == EMU_PLANES_FP32 ? EMU_TYPE_FP32 : EMU_TYPE_UINT8;
    input->shape[0] = v->pixels == EMU_PATCHES_U8
        ? shape(emu_vision_patches(v), v->frames * v->patch * v->patch, 3, 1)
        : v->pixels == EMU_IMAGE_U8 ? shape(height, width, 3, 1) : shape(3, height, width, 4);
    m->info.num_inputs = 1;
    m->info.num_outputs = 1 + v->deep.count;
    for (int o = 0; o < m->info.num_outputs; o++) {
        bool single = o > 0 || m->output_fp32;
        emu_tensor *output = &m->outputs[o];
        snprintf(output->name, sizeof output->name, o ? "deepstack_%d" : "output", o - 1);
        output->type = single ? EMU_TYPE_FP32 : EMU_TYPE_BF16;
        output->shape[0] = shape(tokens, v->out, 0, single ? 4 : 2);
    }
}
