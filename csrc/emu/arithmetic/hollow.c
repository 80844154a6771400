/* Hollow models: shapes and time without weights. Outputs are cheap but deterministic, and show mistakes: a layer's row
 * depends on its own input row and position, a recurrent one's also on its state, and on nothing else; the head's logits
 * depend on the whole hidden row.
 */
#include <pthread.h>
#include <stdlib.h>

#include "model_impl.h"

#define PEAKS 12 /* logits that stand out of the bulk, per row */
/* ids at the end of the vocabulary that never peak: special tokens, so that generation does not end by itself */
#define SPARED 1024
/* all other logits: a sampler that looks 20 temperatures down from the best meets few of them, as with a published
 * model's logits (the same shape as language_like in bench/sampler.py) */
#define BULK_MEAN (-1.0f)
#define BULK_DEVIATION 2.2f
#define REMEMBERED 8 /* output buffers whose peaks are known */

typedef struct remembered {
    const void *output;
    int tokens;
    uint32_t *ids; /* [tokens][PEAKS] */
} remembered;

struct emu_hollow {
    uint16_t *bulk; /* [vocab] bf16, roughly normal */
    pthread_mutex_t lock;
    remembered known[REMEMBERED];
    int oldest;
};

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Four chains of multiplications, so that a row of 2 KiB costs about 100 ns. */
static uint64_t hash_row(const uint16_t *row, size_t n)
{
    uint64_t h[4] = {1, 2, 3, 4}, word[4];
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        memcpy(word, row + i, sizeof word);
        for (int j = 0; j < 4; j++) h[j] = (h[j] ^ word[j]) * 0x9e3779b97f4a7c15u;
        for (int j = 0; j < 4; j++) h[j] ^= h[j] >> 29;
    }
    for (; i < n; i++) h[i % 4] = (h[i % 4] ^ row[i]) * 0x9e3779b97f4a7c15u;
    return mix(h[0] + mix(h[1] + mix(h[2] + mix(h[3]))));
}

emu_hollow *emu_hollow_open(const emu_model_info *info)
{
    emu_hollow *hollow = calloc(1, sizeof *hollow);
    size_t vocab = (size_t)info->vocab;
    if (!hollow) return NULL;
    hollow->bulk = malloc(vocab * sizeof *hollow->bulk);
    if (!hollow->bulk) {
        free(hollow);
        return NULL;
    }
    pthread_mutex_init(&hollow->lock, NULL);
    for (size_t i = 0; i < vocab; i++) {
        uint64_t r = mix(i + 1);
        float sum = 0; /* of four uniform numbers: standard deviation sqrt(4 / 12), at most 3.5 of them from the mean */
        for (int j = 0; j < 4; j++) sum += (float)(r >> 16 * j & 0xffff) / 65536.0f - 0.5f;
        hollow->bulk[i] = emu_to_bf16(BULK_MEAN + sum * (BULK_DEVIATION * 1.7320508f));
    }
    return hollow;
}

void emu_hollow_close(emu_hollow *hollow)
{
    if (!hollow) return;
    for (int i = 0; i < REMEMBERED; i++) free(hollow->known[i].ids);
    pthread_mutex_destroy(&hollow->lock);
    free(hollow->bulk);
    free(hollow);
}

/* A copy with the low mantissa bits of the first elements changed by `salt`: finite input stays finite and about as
 * large, and two layers in the wrong order give another result. */
static void mix_row(uint16_t *out, const uint16_t *in, size_t out_size, size_t in_size, uint64_t salt)
{
    size_t n = out_size < in_size ? out_size : in_size, changed = n < 16 ? n : 16;
    memcpy(out, in, n * sizeof *out);
    for (size_t i = n; i < out_size; i++) out[i] = in[i % in_size];
    uint64_t bits = mix(salt);
    for (size_t i = 0; i < changed; i++)
        out[i] = (uint16_t)((out[i] & 0xffc0) | ((out[i] * 5u + (bits >> 3 * i)) & 0x3f));
}

static void run_layer(const emu_model *m, const emu_group *g, void *const *in, void *const *out)
{
    size_t hidden = (size_t)m->info.hidden, width = (size_t)m->info.kv_heads * (size_t)m->info.head_dim;
    for (size_t t = 0; t < (size_t)g->tokens; t++) {
        uint16_t row[EMU_MAX_HIDDEN]; /* output may be input */
        uint64_t salt = ((uint64_t)((const uint32_t *)in[EMU_IN_INDICES])[t] << 32) + (uint64_t)(m->info.layer + 1) * 4;
        memcpy(row, (const uint16_t *)in[EMU_IN_INPUT] + t * hidden, hidden * sizeof *row);
        mix_row((uint16_t *)out[EMU_OUT_K] + t * width, row, width, hidden, salt + 1);
        mix_row((uint16_t *)out[EMU_OUT_V] + t * width, row, width, hidden, salt + 2);
        mix_row((uint16_t *)out[EMU_OUT_OUTPUT] + t * hidden, row, hidden, hidden, salt);
    }
}

/* The states are handed on, a few of their bits changed by every token that the mask shows; the rows depend on them. */
static void run_recurrent(const emu_model *m, const emu_group *g, void *const *in, void *const *out)
{
    size_t hidden = (size_t)m->info.hidden;
    const uint16_t *input = in[EMU_IN_INPUT], *mask = in[EMU_IN_MASK];
    bool fresh = m->recurrence.p0_zero && g->kind == EMU_GROUP_CHUNK && g->rows == 0;
    for (int s = EMU_IN_K; s <= EMU_IN_V; s++) {
        size_t size = m->inputs[s].shape[g - m->groups].bytes;
        if (fresh) memset(out[s], 0, size);
        else memmove(out[s], in[s], size);
    }
    for (size_t t = 0; t < (size_t)g->tokens; t++) {
        uint16_t row[EMU_MAX_HIDDEN], *k = out[EMU_OUT_K], *v = out[EMU_OUT_V];
        uint64_t salt = ((uint64_t)((const uint32_t *)in[EMU_IN_INDICES])[t] << 32) + (uint64_t)(m->info.layer + 1) * 4;
        memcpy(row, input + t * hidden, hidden * sizeof *row);
        if (mask[t] || m->recurrence.spoils) {
            uint64_t h = hash_row(row, hidden < 16 ? hidden : 16) + salt;
            *k = (uint16_t)((*k & 0xff80) | ((*k * 5u + (unsigned)mix(h + *v)) & 0x7f));
            *v = (uint16_t)((*v & 0xff80) | ((*v * 5u + (unsigned)mix(h + *k)) & 0x7f));
        }
        mix_row((uint16_t *)out[EMU_OUT_OUTPUT] + t * hidden, row, hidden, hidden, salt + *k + ((uint64_t)*v << 16));
    }
}

/* Ids and heights of the logits that stand out: ids differ, heights fall from about 24 to 16. */
static void choose_peaks(const emu_model *m, const uint16_t *row, uint32_t ids[PEAKS])
{
    uint64_t h = hash_row(row, (size_t)m->info.hidden);
    uint32_t vocab = (uint32_t)m->info.vocab, usable = vocab > 2 * SPARED ? vocab - SPARED : (vocab + 1) / 2;
    for (uint32_t i = 0; i < PEAKS; i++) ids[i] = (uint32_t)(mix(h + i) % usable);
}

static float height(uint32_t i)
{
    return 24.0f - 0.7f * (float)i;
}

static void put(const emu_model *m, void *output, size_t at, float value)
{
    if (m->output_fp32) {
        ((float *)output)[at] = value;
    } else {
        ((uint16_t *)output)[at] = emu_to_bf16(value);
    }
}

static void write_bulk(const emu_model *m, void *output, size_t tokens)
{
    size_t vocab = (size_t)m->info.vocab;
    for (size_t t = 0; t < tokens; t++) {
        if (m->output_fp32) {
            emu_widen((float *)output + t * vocab, m->hollow->bulk, vocab);
        } else {
            memcpy((uint16_t *)output + t * vocab, m->hollow->bulk, vocab * sizeof(uint16_t));
        }
    }
}

/* The memory of a buffer's peaks, or a slot for it with `fresh` set; NULL when out of memory. */
static remembered *recall(emu_hollow *hollow, const void *output, int tokens, bool *fresh)
{
    *fresh = false;
    for (int i = 0; i < REMEMBERED; i++)
        if (hollow->known[i].output == output && hollow->known[i].tokens == tokens) return &hollow->known[i];
    *fresh = true;
    remembered *slot = &hollow->known[hollow->oldest];
    uint32_t *ids = realloc(slot->ids, (size_t)tokens * PEAKS * sizeof *ids);
    if (!ids) return NULL;
    hollow->oldest = (hollow->oldest + 1) % REMEMBERED;
    *slot = (remembered){output, tokens, ids};
    return slot;
}

static int run_head(const emu_model *m, const emu_group *g, const uint16_t *input, void *output, bool unchanged)
{
    emu_hollow *hollow = m->hollow;
    size_t vocab = (size_t)m->info.vocab, hidden = (size_t)m->info.hidden, tokens = (size_t)g->tokens;
    bool fresh;
    pthread_mutex_lock(&hollow->lock);
    remembered *slot = recall(hollow, output, g->tokens, &fresh);
    if (slot && (fresh || !unchanged)) write_bulk(m, output, tokens);
    for (size_t t = 0; slot && t < tokens; t++) {
        uint32_t *ids = slot->ids + t * PEAKS;
        if (!fresh && unchanged)
            for (int i = 0; i < PEAKS; i++) put(m, output, t * vocab + ids[i], emu_from_bf16(hollow->bulk[ids[i]]));
        choose_peaks(m, input + t * hidden, ids);
        /* where ids meet, the higher stays */
        for (uint32_t i = PEAKS; i-- > 0;) put(m, output, t * vocab + ids[i], height(i));
    }
    pthread_mutex_unlock(&hollow->lock);
    return slot ? g->tokens : -2;
}

/* Tensors of other types and shapes: every byte of every output, small and finite in any of the types. */
static void fill_outputs(const emu_model *m, const emu_group *g, void *const *out)
{
    for (int i = 0; i < m->info.num_outputs; i++)
        memset(out[i], 0x30 + (m->info.layer + i) % 8, m->outputs[i].shape[g - m->groups].bytes);
}

/* Rows of small numbers that depend on the whole picture and differ from each other. */
static void run_vision(const emu_model *m, const emu_group *g, const void *pixels, void *const *out)
{
    uint64_t seed = hash_row(pixels, (size_t)m->inputs[0].shape[0].bytes / 2);
    for (int o = 0; o < m->info.num_outputs; o++) {
        size_t n = (size_t)g->tokens * (size_t)m->vision.out;
        for (size_t i = 0; i < n; i++) {
            float value = ((float)(mix(seed + i + ((uint64_t)o << 32)) & 0xffff) - 32768.0f) / 1e6f;
            if (m->outputs[o].type == EMU_TYPE_FP32) ((float *)out[o])[i] = value;
            else ((uint16_t *)out[o])[i] = emu_to_bf16(value);
        }
    }
}

int emu_hollow_run(const emu_model *m, const emu_group *g, void *const *in, void *const *out, bool unchanged)
{
    if (m->unusual) {
        fill_outputs(m, g, out);
        return g->tokens;
    }
    if (m->info.kind == EMU_VISION) {
        run_vision(m, g, in[0], out);
        return g->tokens;
    }
    if (m->info.kind == EMU_HEAD) return run_head(m, g, in[EMU_HEAD_IN_INPUT], out[EMU_HEAD_OUT_OUTPUT], unchanged);
    if (m->info.recurrent) run_recurrent(m, g, in, out);
    else run_layer(m, g, in, out);
    return g->tokens;
}
