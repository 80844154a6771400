/* The header of a simulated axmodel: a safetensors header whose metadata describes a layer or a head. */
#include <stdio.h>
#include <stdlib.h>

#include "metadata.h"
#include "recurrent.h"
#include "vision.h"

#define FORMAT "axpress-sim-1"

static const char *const tensor_names[EMU_NUM_WEIGHTS] = {
    [EMU_W_Q] = "q", [EMU_W_K] = "k", [EMU_W_V] = "v", [EMU_W_O] = "o", [EMU_W_GATE] = "gate", [EMU_W_UP] = "up",
    [EMU_W_DOWN] = "down", [EMU_W_HEAD] = "head", [EMU_W_Q_GATE] = "q_gate", [EMU_W_QKV] = "qkv", [EMU_W_Z] = "z",
    [EMU_W_B] = "b", [EMU_W_A] = "a", [EMU_W_SCALE + EMU_W_Q] = "q_scale",
    [EMU_W_SCALE + EMU_W_K] = "k_scale", [EMU_W_SCALE + EMU_W_V] = "v_scale", [EMU_W_SCALE + EMU_W_O] = "o_scale",
    [EMU_W_SCALE + EMU_W_GATE] = "gate_scale", [EMU_W_SCALE + EMU_W_UP] = "up_scale",
    [EMU_W_SCALE + EMU_W_DOWN] = "down_scale", [EMU_W_SCALE + EMU_W_HEAD] = "head_scale",
    [EMU_W_SCALE + EMU_W_Q_GATE] = "q_gate_scale", [EMU_W_SCALE + EMU_W_QKV] = "qkv_scale",
    [EMU_W_SCALE + EMU_W_Z] = "z_scale", [EMU_W_SCALE + EMU_W_B] = "b_scale", [EMU_W_SCALE + EMU_W_A] = "a_scale",
    [EMU_W_INPUT_NORM] = "input_norm", [EMU_W_Q_BIAS] = "q_bias", [EMU_W_K_BIAS] = "k_bias", [EMU_W_V_BIAS] = "v_bias",
    [EMU_W_O_BIAS] = "o_bias", [EMU_W_Q_NORM] = "q_norm", [EMU_W_K_NORM] = "k_norm", [EMU_W_POST_NORM] = "post_norm",
    [EMU_W_ATTENTION_OUT_NORM] = "attention_out_norm", [EMU_W_FFN_OUT_NORM] = "ffn_out_norm",
    [EMU_W_INV_FREQ] = "inv_freq", [EMU_W_NORM] = "norm", [EMU_W_CONV] = "conv", [EMU_W_A_LOG] = "a_log",
    [EMU_W_DT_BIAS] = "dt_bias", [EMU_W_STATE_NORM] = "state_norm", [EMU_W_PATCH] = "patch",
    [EMU_W_MERGE_IN] = "merge_in", [EMU_W_MERGE_OUT] = "merge_out", [EMU_W_SCALE + EMU_W_PATCH] = "patch_scale",
    [EMU_W_SCALE + EMU_W_MERGE_IN] = "merge_in_scale", [EMU_W_SCALE + EMU_W_MERGE_OUT] = "merge_out_scale",
    [EMU_W_PATCH_BIAS] = "patch_bias", [EMU_W_CLASS] = "class", [EMU_W_POSITIONS] = "positions",
    [EMU_W_INPUT_NORM_BIAS] = "input_norm_bias", [EMU_W_POST_NORM_BIAS] = "post_norm_bias",
    [EMU_W_GATE_BIAS] = "gate_bias", [EMU_W_UP_BIAS] = "up_bias", [EMU_W_DOWN_BIAS] = "down_bias",
    [EMU_W_ATTENTION_SCALE] = "attention_out_scale", [EMU_W_FFN_SCALE] = "ffn_out_scale",
    [EMU_W_NORM_BIAS] = "norm_bias", [EMU_W_MERGE_NORM] = "merge_norm", [EMU_W_MERGE_NORM_BIAS] = "merge_norm_bias",
    [EMU_W_DEEP_NORM] = "deep_norm", [EMU_W_DEEP_NORM_BIAS] = "deep_norm_bias",
    [EMU_W_MERGE_IN_BIAS] = "merge_in_bias", [EMU_W_MERGE_OUT_BIAS] = "merge_out_bias"};

/* The type of a tensor, from its name in the header; 0 where this tensor cannot have it. */
static int tensor_type(int which, const char *dtype)
{
    bool single = which == EMU_W_INV_FREQ || which == EMU_W_A_LOG || which == EMU_W_DT_BIAS
        || which == EMU_W_CLASS || which == EMU_W_POSITIONS
        || (which >= EMU_W_SCALE && which < EMU_W_SCALE + EMU_NUM_MATRICES);
    if (strcmp(dtype, "F32") == 0) return single ? EMU_TYPE_FP32 : 0;
    if (strcmp(dtype, "I8") == 0) return which < EMU_NUM_MATRICES ? EMU_TYPE_INT8 : 0;
    return strcmp(dtype, "BF16") == 0 && !single ? EMU_TYPE_BF16 : 0;
}

static bool read_extent(json_reader *json, emu_extent *extent, char dtype[16])
{
    char field[32];
    uint64_t value, offsets[2] = {1, 0};
    bool first = true;
    int n = 0;
    while (json_key(json, &first, field, sizeof field)) {
        bool inner = true;
        if (strcmp(field, "dtype") == 0) {
            json_string(json, dtype, 16);
        } else if (strcmp(field, "shape") == 0) {
            json_array(json);
            extent->ndims = 0;
            while (json_item(json, &inner) && json_uint(json, &value))
                if (extent->ndims++ < EMU_MAX_DIMS) extent->dims[extent->ndims - 1] = value;
        } else if (strcmp(field, "data_offsets") == 0) {
            json_array(json);
            for (n = 0; json_item(json, &inner) && json_uint(json, &value); n++)
                if (n < 2) offsets[n] = value;
        } else {
            json_skip(json);
        }
    }
    extent->begin = offsets[0];
    extent->end = offsets[1];
    return n == 2 && dtype[0] && extent->begin <= extent->end;
}

static int read_tensor(emu_reading *r, json_reader *json, const char *name)
{
    emu_extent extent = {.present = true};
    char dtype[16] = "";
    if (!json_object(json)) return 0;
    bool complete = read_extent(json, &extent, dtype);
    if (json->error) return 0;
    int which = 0;
    while (which < EMU_NUM_WEIGHTS && strcmp(name, tensor_names[which]) != 0) which++;
    if (which == EMU_NUM_WEIGHTS) return emu_complain(r, ": unknown tensor \"%.40s\"", name);
    if (r->header->tensors[which].present) return emu_complain(r, ": tensor %s is given twice", name);
    if (!complete) return emu_complain(r, ": tensor %s lacks a type, a shape or a byte range", name);
    if (!(extent.type = tensor_type(which, dtype)))
        return emu_complain(r, ": tensor %s has type %s instead of %s", name, dtype,
            tensor_type(which, "F32") ? "F32" : which < EMU_NUM_MATRICES ? "BF16 or I8" : "BF16");
    if (extent.end > r->file_size - r->data_start)
        return emu_complain(r,
            " is cut short: tensor %s ends at byte %llu of a file of %llu; copy or download it again",
            name, (unsigned long long)(r->data_start + extent.end), (unsigned long long)r->file_size);
    extent.begin += r->data_start;
    extent.end += r->data_start;
    if (extent.type == EMU_TYPE_BF16 && extent.begin % 2 != 0)
        return emu_complain(r, ": tensor %s starts at an odd byte", name);
    r->header->tensors[which] = extent;
    return 0;
}

static int read_json(emu_reading *r, const char *text, size_t size)
{
    json_reader json;
    char name[64];
    bool first = true;
    json_open(&json, text, size);
    json_object(&json);
    while (json_key(&json, &first, name, sizeof name)) {
        int failed = strcmp(name, "__metadata__") == 0 ? emu_read_metadata(r, &json) : read_tensor(r, &json, name);
        if (failed) return -1;
    }
    if (!json_finish(&json))
        return emu_complain(
            r, ": its header is damaged at byte %zu: %s", (size_t)(json.at - json.start) + 8, json.error);
    return 0;
}

static int check_shape(const emu_reading *r, int which, bool required, uint64_t rows, uint64_t cols)
{
    const emu_extent *e = &r->header->tensors[which];
    int ndims = cols ? 2 : 1;
    if (!e->present) return required ? emu_complain(r, ": tensor %s is missing", tensor_names[which]) : 0;
    uint64_t size = e->type == EMU_TYPE_FP32 ? 4 : e->type == EMU_TYPE_BF16 ? 2 : 1;
    uint64_t bytes = rows * (cols ? cols : 1) * size;
    if (e->ndims == ndims && e->dims[0] == rows && (!cols || e->dims[1] == cols) && e->end - e->begin == bytes)
        return 0;
    char shape[64], wanted[64];
    snprintf(wanted, sizeof wanted, cols ? "[%llu, %llu]" : "[%llu]", (unsigned long long)rows,
        (unsigned long long)cols);
    snprintf(shape, sizeof shape, e->ndims > 1 ? "[%llu, %llu%s]" : "[%llu]", (unsigned long long)e->dims[0],
             (unsigned long long)e->dims[1], e->ndims > 2 ? ", ..." : "");
    return emu_complain(r,
        ": tensor %s has shape %s in %llu bytes, the metadata asks for %s", tensor_names[which], shape,
                    (unsigned long long)(e->end - e->begin), wanted);
}

/* A matrix, and the scales of its rows: int8 has them, bf16 has none. */
static int check_matrix(const emu_reading *r, int which, uint64_t rows, uint64_t cols)
{
    const emu_extent *e = &r->header->tensors[which], *scale = &r->header->tensors[EMU_W_SCALE + which];
    if (check_shape(r, which, true, rows, cols) != 0) return -1;
    if (e->type == EMU_TYPE_INT8) return check_shape(r, EMU_W_SCALE + which, true, rows, 0);
    return scale->present ? emu_complain(r, ": tensor %s_scale belongs to int8 weights, but %s is BF16",
        tensor_names[which], tensor_names[which]) : 0;
}

/* Frequencies of RoPE: of all pairs of a head's dimensions, or in Qwen3.5 of the first ones. */
static uint64_t rope_pairs(const emu_header *h)
{
    const emu_extent *e = &h->tensors[EMU_W_INV_FREQ];
    uint64_t all = (uint64_t)h->info.head_dim / 2;
    return emu_is_qwen3_5(&h->info) && e->ndims == 1 && e->dims[0] > 0 && e->dims[0] < all ? e->dims[0] : all;
}

/* Positions of three axes: how many pairs turn by each, all pairs in all. */
static int check_axes(const emu_reading *r)
{
    const emu_list *sections = &r->header->rope_sections;
    double pairs = 0;
    if (sections->count == 0)
        return r->header->rope_interleaved ? emu_complain(r, ": rope_interleaved needs rope_sections") : 0;
    if (sections->count != 3) return emu_complain(r, ": rope_sections has %d numbers instead of 3", sections->count);
    for (int k = 0; k < 3; k++) pairs += sections->at[k];
    if (r->header->info.recurrent || r->header->info.hollow || pairs == (double)rope_pairs(r->header)) return 0;
    return emu_complain(r, ": rope_sections are of %.0f pairs, inv_freq has %llu", pairs,
        (unsigned long long)rope_pairs(r->header));
}

static int check_layer_tensors(const emu_reading *r)
{
    const emu_model_info *i = &r->header->info;
    uint64_t hidden = (uint64_t)i->hidden, dims = (uint64_t)i->head_dim, ffn = (uint64_t)i->ffn;
    uint64_t width = (uint64_t)i->heads * dims, kv = (uint64_t)i->kv_heads * dims;
    bool qwen3 = strcmp(i->family, "qwen3") == 0, qwen2 = strcmp(i->family, "qwen2") == 0;
    bool gemma = emu_is_gemma(i), normed = qwen3 || gemma || emu_is_qwen3_5(i);
    const struct { int which; uint64_t rows, cols; } matrices[] = {
        {EMU_W_Q, width, hidden}, {EMU_W_K, kv, hidden}, {EMU_W_V, kv, hidden}, {EMU_W_O, hidden, width},
        {EMU_W_GATE, ffn, hidden}, {EMU_W_UP, ffn, hidden}, {EMU_W_DOWN, hidden, ffn}};
    const struct { int which; bool required; uint64_t size; } vectors[] = {
        {EMU_W_INPUT_NORM, true, hidden}, {EMU_W_POST_NORM, true, hidden},
        {EMU_W_INV_FREQ, true, rope_pairs(r->header)},
        {EMU_W_Q_BIAS, qwen2, width}, {EMU_W_K_BIAS, qwen2, kv}, {EMU_W_V_BIAS, qwen2, kv},
        {EMU_W_O_BIAS, false, hidden}, {EMU_W_Q_NORM, normed, dims}, {EMU_W_K_NORM, normed, dims},
        {EMU_W_ATTENTION_OUT_NORM, gemma, hidden}, {EMU_W_FFN_OUT_NORM, gemma, hidden}};
    for (size_t k = 0; k < sizeof matrices / sizeof *matrices; k++)
        if (check_matrix(r, matrices[k].which, matrices[k].rows, matrices[k].cols) != 0) return -1;
    for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++)
        if (check_shape(r, vectors[k].which, vectors[k].required, vectors[k].size, 0) != 0) return -1;
    return r->header->gated ? check_matrix(r, EMU_W_Q_GATE, width, hidden) : 0;
}

/* The tensors that a description asks for, or the sentence in its place. */
static int check_wanted(const emu_reading *r, const emu_wanted *wanted, int count, const char *wrong)
{
    if (count < 0) return emu_complain(r, ": %.120s", wrong);
    for (int k = 0; k < count && !r->header->info.hollow; k++) {
        const emu_wanted *w = &wanted[k];
        bool matrix = w->required && w->which < EMU_NUM_MATRICES;
        int failed = matrix ? check_matrix(r, w->which, w->rows, w->cols)
            : check_shape(r, w->which, w->required, w->rows, w->cols);
        if (failed) return -1;
    }
    return 0;
}

static int check_recurrent(const emu_reading *r)
{
    emu_wanted wanted[EMU_NUM_WEIGHTS];
    char wrong[EMU_ERR];
    int count = emu_recurrent_check(r->header, wanted, wrong);
    return check_wanted(r, wanted, count, wrong);
}

/* The metadata that a kind of file must have, and whether its numbers fit together. */
static int check_layer(const emu_reading *r)
{
    const emu_header *h = r->header;
    const emu_model_info *i = &h->info;
    const struct { const char *name; int value; } needed[] = {{"hidden", i->hidden}, {"heads", i->heads},
        {"kv_heads", i->kv_heads}, {"head_dim", i->head_dim}, {"ffn", i->ffn}};
    for (int k = 0; k < 5; k++)
        if (needed[k].value <= 0) return emu_complain(r, ": metadata %s is missing", needed[k].name);
    int chunks = i->chunk > 0 ? h->history.count : 0;
    if (i->heads % i->kv_heads != 0)
        return emu_complain(r, ": %d heads cannot share %d key/value heads evenly", i->heads, i->kv_heads);
    if (i->head_dim % 2 != 0) return emu_complain(r, ": head_dim %d is odd, rotary positions need pairs", i->head_dim);
    if (i->chunk > 0 && chunks == 0) return emu_complain(r, ": chunk = %d but history is empty", i->chunk);
    if (h->decode_rows.count + chunks == 0)
        return emu_complain(r, " has no shape groups: metadata decode_rows is missing");
    if (h->decode_rows.count + chunks > EMU_MAX_GROUPS)
        return emu_complain(r, " has more than %d shape groups", EMU_MAX_GROUPS);
    if (h->cost_chunk.count != 0 && h->cost_chunk.count != chunks)
        return emu_complain(r, ": cost_chunk_us has %d entries for %d chunk groups", h->cost_chunk.count, chunks);
    if (h->cost_decode.count != 0 && h->cost_decode.count != h->decode_rows.count)
        return emu_complain(r, ": cost_decode_us has %d entries for %d decode groups", h->cost_decode.count,
            h->decode_rows.count);
    if (check_axes(r) != 0) return -1;
    if (i->recurrent) return check_recurrent(r);
    return i->hollow ? 0 : check_layer_tensors(r);
}

static int check_head(const emu_reading *r)
{
    const emu_model_info *i = &r->header->info;
    bool logits = emu_gives_logits(r->header->gives);
    if (i->hidden <= 0) return emu_complain(r, ": metadata hidden is missing");
    if (logits && i->vocab <= 0) return emu_complain(r, ": metadata vocab is missing");
    if (i->hollow && r->header->gives != EMU_LOGITS)
        return emu_complain(r, ": head_gives \"%s\" needs weights, the file is hollow", r->gives);
    if (i->hollow) return 0;
    if (check_shape(r, EMU_W_NORM, true, (uint64_t)i->hidden, 0) != 0) return -1;
    return logits ? check_matrix(r, EMU_W_HEAD, (uint64_t)i->vocab, (uint64_t)i->hidden) : 0;
}

static int check_vision(const emu_reading *r)
{
    emu_wanted wanted[EMU_NUM_WEIGHTS];
    char wrong[EMU_ERR];
    int count = emu_vision_check(r->header, wanted, wrong);
    return check_wanted(r, wanted, count, wrong);
}

static bool head_gives(const emu_reading *r)
{
    static const char *const names[] = {[EMU_LOGITS] = "logits", [EMU_NORM] = "norm",
        [EMU_NORM_AS_OUTPUT] = "norm_as_output", [EMU_LOGITS_AND_NORM] = "both"};
    for (int i = 0; i < 4; i++) {
        if (r->gives[0] && strcmp(r->gives, names[i]) != 0) continue;
        r->header->gives = (emu_head_gives)i;
        return true;
    }
    return false;
}

static int check(emu_reading *r)
{
    static const char *const layer_kinds[] = {"attention", "recurrent", NULL};
    emu_header *h = r->header;
    emu_model_info *i = &h->info;
    if (!r->format[0])
        return emu_complain(r, " is a safetensors file but not a simulated axmodel: its metadata names no format");
    if (strcmp(r->format, FORMAT) != 0)
        return emu_complain(r, " has format \"%s\", this emulator reads \"" FORMAT "\": convert the model again",
            r->format);
    bool head = strcmp(r->kind, "head") == 0, vision = strcmp(r->kind, "vision") == 0;
    if (!head && !vision && strcmp(r->kind, "layer") != 0)
        return emu_complain(r, ": metadata kind is \"%s\" instead of layer, head or vision", r->kind);
    if (!vision && strcmp(i->family, "qwen3") != 0 && strcmp(i->family, "qwen2") != 0 && strcmp(i->family, "llama") != 0
        && !emu_is_gemma(i) && !emu_is_qwen3_5(i))
        return emu_complain(
            r, ": family \"%s\" is not one of qwen3, qwen2, llama, gemma3_text, qwen3_5_text", i->family);
    h->output_fp32 = strcmp(r->dtype, "fp32") == 0;
    if (r->dtype[0] && !h->output_fp32 && strcmp(r->dtype, "bf16") != 0)
        return emu_complain(r, ": output_dtype \"%s\" is not bf16 or fp32", r->dtype);
    h->p0_kv = strcmp(r->p0_width, "kv") == 0;
    if (r->p0_width[0] && !h->p0_kv && strcmp(r->p0_width, "hidden") != 0)
        return emu_complain(r, ": p0_width \"%s\" is not hidden or kv", r->p0_width);
    if (!head_gives(r))
        return emu_complain(r, ": head_gives \"%s\" is not logits, norm, norm_as_output or both", r->gives);
    char wrong[EMU_ERR];
    int layer_kind = emu_word("layer_kind", r->layer_kind, layer_kinds, wrong);
    if (layer_kind < 0) return emu_complain(r, ": %.120s", wrong);
    i->recurrent = !head && !vision && layer_kind == 1;
    i->index_rows = h->rope_sections.count ? 3 : 1;
    h->rope_interleaved = r->interleaved != 0;
    h->gated = r->gated != 0;
    i->kind = vision ? EMU_VISION : head ? EMU_HEAD : EMU_LAYER;
    i->hollow = r->hollow != 0;
    if (h->unusual[0] && !i->hollow)
        return emu_complain(r, ": metadata tensors is for hollow files: arithmetic knows the usual tensors only");
    if (!i->compiler[0]) memcpy(i->compiler, "axpress-sim 1", 14);
    if (i->cmm_bytes == 0) i->cmm_bytes = i->file_bytes;
    return vision ? check_vision(r) : head ? check_head(r) : check_layer(r);
}

static int not_simulated(const emu_reading *r, const char *data, size_t size)
{
    static const char pointer[] = "version https://git-lfs";
    if (size >= sizeof pointer - 1 && memcmp(data, pointer, sizeof pointer - 1) == 0)
        return emu_complain(r, " is a Git LFS pointer of %zu bytes, not the file: fetch it with git lfs pull", size);
    if (size < 8) return emu_complain(r, " is not a simulated axmodel: it has only %zu bytes", size);
    return emu_complain(r, " is not a simulated axmodel: "
        "the emulated card runs only models made by axpress convert or axpress hollow");
}

int emu_header_read(emu_header *header, const void *data, size_t size, const char *name, char err[EMU_ERR])
{
    const char *text = (const char *)data + 8;
    emu_reading r = {.header = header, .name = name, .err = err, .file_size = size};
    uint64_t length = 0;
    *header = (emu_header){.info = {.layer = -1, .layers = -1, .file_bytes = size}, .rms_eps = 1e-6, .rope_factor = 1.0,
        .cost_head = -1, .cost_encoder = -1, .vision = {.frames = 1, .merge = 1, .merger_eps = 1e-6}};
    for (int i = 7; i >= 0 && size >= 8; i--) length = length << 8 | ((const uint8_t *)data)[i];
    if (size < 9 || *text != '{' || length < 2 || length > 100u << 20) return not_simulated(&r, data, size);
    if (length > size - 8)
        return emu_complain(&r,
            " is cut short: its header alone has %llu bytes, the file %zu; copy or download it again",
                        (unsigned long long)length, size);
    r.data_start = 8 + length;
    return read_json(&r, text, (size_t)length) != 0 ? -1 : check(&r);
}
