#define _GNU_SOURCE
#include "model.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model_impl.h"
#include "vision.h"

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static int num_open; /* scratch memory is freed with the last model */

static void count_open(int change)
{
    pthread_mutex_lock(&open_lock);
    num_open += change;
    if (num_open == 0) emu_scratch_clear();
    pthread_mutex_unlock(&open_lock);
}

static void add_group(emu_model *m, emu_group_kind kind, int tokens, int rows, int ladder_index, double cost_us)
{
    m->groups[m->info.num_groups++] = (emu_group){kind, tokens, rows, ladder_index, cost_us};
}

static void make_groups(emu_model *m, const emu_header *h)
{
    if (m->info.kind == EMU_VISION) {
        add_group(m, EMU_GROUP_VISION, emu_vision_tokens(&h->vision), 0, 0, h->cost_encoder);
        return;
    }
    if (m->info.kind == EMU_HEAD) {
        for (int i = 0; i < h->head_rows.count; i++)
            add_group(m, EMU_GROUP_HEAD, (int)h->head_rows.at[i], 0, i, h->cost_head);
        if (h->head_rows.count == 0) add_group(m, EMU_GROUP_HEAD, 1, 0, 0, h->cost_head);
        return;
    }
    for (int i = 0; i < h->decode_rows.count; i++)
        add_group(m, EMU_GROUP_DECODE, 1, (int)h->decode_rows.at[i], i,
            h->cost_decode.count ? h->cost_decode.at[i] : -1);
    for (int i = 0; m->info.chunk > 0 && i < h->history.count; i++)
        add_group(m, EMU_GROUP_CHUNK, m->info.chunk, (int)h->history.at[i], i,
            h->cost_chunk.count ? h->cost_chunk.at[i] : -1);
}

/* Shape [1, a, b], or [1, a] when b is 0. */
static emu_tensor_shape shape(int a, int b, size_t element)
{
    emu_tensor_shape s = {.ndims = b ? 3 : 2, .dims = {1, a, b}};
    s.bytes = (uint64_t)a * (uint64_t)(b ? b : 1) * element;
    return s;
}

/* What a chunk says of its tokens' positions: a row, or one for each of three axes; decode's one stands for all. */
static emu_tensor_shape index_shape(const emu_model *m, int tokens)
{
    int rows = m->info.index_rows;
    if (rows == 1 || tokens == 1) return shape(tokens, 0, 4);
    return (emu_tensor_shape){2, {rows, tokens}, (uint64_t)rows * (uint64_t)tokens * 4};
}

static void name_tensor(emu_tensor *t, const char *name, int type)
{
    snprintf(t->name, sizeof t->name, "%s", name);
    t->type = type;
}

static void make_head_tensors(emu_model *m)
{
    int type = m->output_fp32 ? EMU_TYPE_FP32 : EMU_TYPE_BF16;
    int hidden = m->info.hidden, widths[2], n = 0;
    if (emu_gives_logits(m->gives)) {
        name_tensor(&m->outputs[n], "output", type);
        widths[n++] = m->info.vocab;
    }
    if (m->gives != EMU_LOGITS) {
        name_tensor(&m->outputs[n], m->gives == EMU_NORM_AS_OUTPUT ? "output" : "output_norm", type);
        widths[n++] = hidden;
    }
    m->info.num_inputs = 1;
    m->info.num_outputs = n;
    name_tensor(&m->inputs[0], "input", EMU_TYPE_BF16);
    for (int g = 0; g < m->info.num_groups; g++) {
        m->inputs[0].shape[g] = shape(m->groups[g].tokens, hidden, 2);
        for (int i = 0; i < n; i++)
            m->outputs[i].shape[g] = shape(m->groups[g].tokens, widths[i], m->output_fp32 ? 4 : 2);
    }
}

static void make_layer_tensors(emu_model *m, bool p0_kv)
{
    static const char *const in[] = {"K_cache", "V_cache", "indices", "input", "mask"};
    static const char *const out[] = {"K_cache_out", "V_cache_out", "output"};
    int width = m->info.kv_heads * m->info.head_dim, hidden = m->info.hidden;
    emu_tensor_shape unread = shape(1, p0_kv ? width : hidden, 2); /* a cache of no rows still has one, of any value */
    m->info.num_inputs = 5;
    m->info.num_outputs = 3;
    for (int i = 0; i < 5; i++)
        name_tensor(&m->inputs[i], in[i], i == EMU_IN_INDICES ? EMU_TYPE_UINT32 : EMU_TYPE_BF16);
    for (int i = 0; i < 3; i++) name_tensor(&m->outputs[i], out[i], EMU_TYPE_BF16);
    for (int g = 0; g < m->info.num_groups; g++) {
        int tokens = m->groups[g].tokens, rows = m->groups[g].rows;
        m->inputs[EMU_IN_K].shape[g] = m->inputs[EMU_IN_V].shape[g] = rows > 0 ? shape(rows, width, 2) : unread;
        m->inputs[EMU_IN_INDICES].shape[g] = index_shape(m, tokens);
        m->inputs[EMU_IN_INPUT].shape[g] = m->outputs[EMU_OUT_OUTPUT].shape[g] = shape(tokens, hidden, 2);
        m->inputs[EMU_IN_MASK].shape[g] = shape(tokens, rows + tokens, 2);
        m->outputs[EMU_OUT_K].shape[g] = m->outputs[EMU_OUT_V].shape[g] = shape(tokens, width, 2);
    }
}

/* A recurrent layer: the same names, but K and V are two states, equal in every group, and the mask has an element a
 * token. */
static void make_recurrent_tensors(emu_model *m)
{
    const emu_model_info *i = &m->info;
    int element = m->recurrence.type == EMU_TYPE_FP32 ? 4 : 2, k = EMU_IN_K, v = EMU_IN_V;
    emu_tensor_shape conv = shape(i->conv_kernel - 1, i->conv_dim, (size_t)element);
    emu_tensor_shape state = {4, {1, i->value_heads, i->key_dim, i->value_dim}, (uint64_t)element};
    for (int d = 0; d < 4; d++) state.bytes *= (uint64_t)state.dims[d];
    for (int s = k; s <= v; s++) {
        m->inputs[s].type = m->outputs[s].type = m->recurrence.type;
        for (int g = 0; g < i->num_groups; g++) {
            m->inputs[s].shape[g] = m->outputs[s].shape[g] = (s == v) != m->recurrence.swapped ? state : conv;
            m->inputs[EMU_IN_MASK].shape[g] = shape(1, m->groups[g].tokens, 2);
        }
    }
}

/* By which axis each pair turns: sections one after the other, or taking turns pair by pair as long as rows (1) and
 * columns (2) have any. */
static void choose_axes(emu_model *m, const emu_header *h)
{
    const double *sections = h->rope_sections.at;
    for (int pair = 0; h->rope_sections.count && pair < EMU_MAX_HEAD_DIM / 2; pair++) {
        int turn = pair % 3;
        if (h->rope_interleaved) m->rope_axis[pair] = (uint8_t)(turn && pair < 3 * sections[turn] ? turn : 0);
        else m->rope_axis[pair] = (uint8_t)(pair < sections[0] ? 0 : pair < sections[0] + sections[1] ? 1 : 2);
    }
}

/* Weights in place; fp32 ones are copied, they may lie at an address that floats must not have. */
static bool bind_weights(emu_model *m, const emu_header *h)
{
    const char *data = m->data;
    size_t bytes = 0, used = 0;
    for (int i = 0; i < EMU_NUM_WEIGHTS; i++)
        if (h->tensors[i].type == EMU_TYPE_FP32) bytes += h->tensors[i].end - h->tensors[i].begin;
    if (bytes && !(m->singles = malloc(bytes))) return false;
    for (int i = 0; i < EMU_NUM_WEIGHTS; i++) {
        const emu_extent *e = &h->tensors[i];
        if (!e->present) continue;
        m->weights[i] = data + e->begin;
        if (e->type == EMU_TYPE_INT8) m->info.int8 = 1;
        if (e->type != EMU_TYPE_FP32) continue;
        m->weights[i] = memcpy((char *)m->singles + used, data + e->begin, e->end - e->begin);
        used += e->end - e->begin;
    }
    return true;
}

static void release(const void *data, size_t size, bool mapped)
{
    if (mapped) {
        munmap((void *)data, size);
    } else {
        free((void *)data);
    }
}

/* Takes `data` over, also on failure. */
static emu_model *make(const void *data, size_t size, bool mapped, const char *name, char err[EMU_ERR])
{
    emu_header *h = malloc(sizeof *h);
    emu_model *m = calloc(1, sizeof *m);
    bool fits = h && m && emu_header_read(h, data, size, name, err) == 0;
    if (!h || !m) snprintf(err, EMU_ERR, "%.200s: out of memory", name);
    if (!fits) {
        release(data, size, mapped);
        free(m);
        free(h);
        return NULL;
    }
    m->info = h->info;
    m->data = data;
    m->size = size;
    m->mapped = mapped;
    m->rms_eps = (float)h->rms_eps;
    m->rope_factor = (float)h->rope_factor;
    m->gelu = emu_is_gemma(&h->info);
    m->norm_offset = m->gelu || emu_is_qwen3_5(&h->info) ? 1.0f : 0.0f;
    m->gated = h->gated;
    m->vision = h->vision;
    m->recurrence = h->recurrence;
    m->rope_half = (int)h->tensors[EMU_W_INV_FREQ].dims[0];
    choose_axes(m, h);
    m->attention_scale = h->attention_scale > 0 ? (float)h->attention_scale : 1.0f / sqrtf((float)h->info.head_dim);
    m->output_fp32 = h->output_fp32;
    m->gives = h->gives;
    if (!emu_gives_logits(m->gives)) m->info.vocab = 0;
    make_groups(m, h);
    if (m->info.kind == EMU_VISION) {
        emu_vision_tensors(m);
    } else if (m->info.kind == EMU_HEAD) {
        make_head_tensors(m);
    } else {
        make_layer_tensors(m, h->p0_kv);
        if (m->info.recurrent) make_recurrent_tensors(m);
    }
    count_open(1);
    bool sound = emu_tensors_change(m, h->unusual, name, err) == 0;
    bool whole = m->info.hollow || bind_weights(m, h);
    if (m->info.hollow && m->info.kind == EMU_HEAD) whole = (m->hollow = emu_hollow_open(&m->info)) != NULL;
    free(h);
    if (sound && whole) return m;
    if (sound) snprintf(err, EMU_ERR, "%.200s: out of memory", name);
    emu_model_close(m);
    return NULL;
}

emu_model *emu_model_open_file(const char *path, char err[EMU_ERR])
{
    struct stat status;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    void *data = MAP_FAILED;
    err[0] = 0;
    if (file < 0 || fstat(file, &status) != 0) {
        snprintf(err, EMU_ERR, "%.180s: %s", path, strerror(errno));
    } else if (!S_ISREG(status.st_mode)) {
        snprintf(err, EMU_ERR, "%.180s is not a file", path);
    } else if (status.st_size == 0) {
        snprintf(err, EMU_ERR, "%.180s is empty, not a simulated axmodel", path);
    } else {
        data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
        if (data == MAP_FAILED) snprintf(err, EMU_ERR, "%.180s cannot be mapped: %s", path, strerror(errno));
    }
    if (file >= 0) close(file);
    if (data == MAP_FAILED) return NULL;
    return make(data, (size_t)status.st_size, true, path, err);
}

emu_model *emu_model_open_mem(const void *data, size_t size, char err[EMU_ERR])
{
    void *copy = aligned_alloc(64, (size / 64 + 1) * 64);
    err[0] = 0;
    if (!copy) {
        snprintf(err, EMU_ERR, "a model in memory: out of memory for a copy of %zu bytes", size);
        return NULL;
    }
    memcpy(copy, data, size);
    return make(copy, size, false, "a model in memory", err);
}

void emu_model_close(emu_model *m)
{
    if (!m) return;
    emu_hollow_close(m->hollow);
    free(m->singles);
    release(m->data, m->size, m->mapped);
    free(m);
    count_open(-1);
}

int emu_model_peek(const char *path, emu_model_info *info, char err[EMU_ERR])
{
    emu_model *m = emu_model_open_file(path, err);
    if (!m) return -1;
    *info = m->info;
    emu_model_close(m);
    return 0;
}

const emu_model_info *emu_model_get_info(const emu_model *m)
{
    return &m->info;
}

const emu_group *emu_model_group(const emu_model *m, int group)
{
    return group >= 0 && group < m->info.num_groups ? &m->groups[group] : NULL;
}

const emu_tensor *emu_model_input(const emu_model *m, int index)
{
    return index >= 0 && index < m->info.num_inputs ? &m->inputs[index] : NULL;
}

const emu_tensor *emu_model_output(const emu_model *m, int index)
{
    return index >= 0 && index < m->info.num_outputs ? &m->outputs[index] : NULL;
}

int emu_model_execute(const emu_model *m, int group, void *const *inputs, void *const *outputs,
    const emu_exec_flags *flags)
{
    static const emu_exec_flags none;
    const emu_group *g = emu_model_group(m, group);
    if (!g) return -1;
    if (!flags) flags = &none;
    if (m->info.hollow) return emu_hollow_run(m, g, inputs, outputs, flags->output_unchanged != 0);
    if (m->info.kind == EMU_HEAD) return emu_head_run(m, g, inputs[EMU_HEAD_IN_INPUT], outputs);
    if (m->info.kind == EMU_VISION) return emu_vision_run(m, inputs[0], outputs);
    return emu_layer_run(m, g, inputs, outputs, flags->scan_nan != 0);
}
