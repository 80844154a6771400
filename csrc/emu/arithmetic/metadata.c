/* The metadata of a simulated axmodel: what each key may hold, and where its value goes. */
#define _GNU_SOURCE
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "metadata.h"

int emu_complain(const emu_reading *r, const char *format, ...)
{
    int used = snprintf(r->err, EMU_ERR, "%.120s", r->name);
    if (strlen(r->name) > 120) used = snprintf(r->err, EMU_ERR, "...%s", r->name + strlen(r->name) - 117);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->err + used, EMU_ERR - (size_t)used, format, arguments);
    va_end(arguments);
    return -1;
}

/* A finite decimal number that is the whole text, whatever the program's locale. */
static bool number(const char *text, char **end, double *out)
{
    static locale_t plain;
    locale_t made = __atomic_load_n(&plain, __ATOMIC_ACQUIRE);
    if (!made) {
        made = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        locale_t none = (locale_t)0;
        if (!__atomic_compare_exchange_n(&plain, &none, made, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            freelocale(made);
            made = none;
        }
    }
    if (!strchr("0123456789.-", *text) || !*text) return false;
    *out = strtod_l(text, end, made);
    return *end != text && isfinite(*out);
}

static bool single(const char *text, double *out)
{
    char *end;
    return number(text, &end, out) && *end == 0;
}

static bool list(const char *text, emu_list *out)
{
    out->count = 0;
    if (*text == 0) return true;
    for (;;) {
        char *end;
        if (out->count == EMU_MAX_GROUPS || !number(text, &end, &out->at[out->count])) return false;
        out->count++;
        if (*end == 0) return true;
        if (*end != ',') return false;
        text = end + 1;
    }
}

typedef enum value_kind { TEXT, INTEGER, REAL, LIST, INTEGERS } value_kind;
typedef struct key {
    const char *name;
    value_kind kind;
    void *at;
    size_t size;      /* TEXT */
    double low, high; /* numbers */
} key;

static bool in_range(const key *k, double value, bool whole)
{
    return value >= k->low && value <= k->high && (!whole || value == floor(value));
}

static int store(const emu_reading *r, const key *k, const char *text)
{
    double value;
    emu_list *values = k->at;
    switch (k->kind) {
    case TEXT:
        if (strlen(text) >= k->size) return emu_complain(r, ": metadata %s is too long", k->name);
        memcpy(k->at, text, strlen(text) + 1);
        return 0;
    case INTEGER:
    case REAL:
        if (!single(text, &value) || !in_range(k, value, k->kind == INTEGER)) break;
        if (k->kind == REAL) *(double *)k->at = value;
        if (k->kind == INTEGER) *(int *)k->at = (int)value;
        return 0;
    case LIST:
    case INTEGERS:
        if (!list(text, values)) break;
        for (int i = 0; i < values->count; i++)
            if (!in_range(k, values->at[i], k->kind == INTEGERS)) goto wrong;
        return 0;
    }
wrong:
    const char *wanted = k->kind == INTEGER ? "a whole number"
        : k->kind == REAL ? "a number" : "a comma list of at most 128 numbers";
    return emu_complain(
        r, ": metadata %s = \"%.40s\" is not %s from %.9g to %.9g", k->name, text, wanted, k->low, k->high);
}

static int metadata_entry(emu_reading *r, const char *name, const char *text)
{
    emu_header *h = r->header;
    emu_model_info *i = &h->info;
    const double most_rows = 1 << 20, most_us = 1e9;
    double charged = 0, published = 0;
    emu_vision *v = &h->vision;
    const key keys[] = {
        {"format", TEXT, r->format, sizeof r->format, 0, 0},
        {"kind", TEXT, r->kind, sizeof r->kind, 0, 0},
        {"family", TEXT, i->family, sizeof i->family, 0, 0},
        {"profile", TEXT, i->profile, sizeof i->profile, 0, 0},
        {"compiler", TEXT, i->compiler, sizeof i->compiler, 0, 0},
        {"output_dtype", TEXT, r->dtype, sizeof r->dtype, 0, 0},
        {"p0_width", TEXT, r->p0_width, sizeof r->p0_width, 0, 0},
        {"head_gives", TEXT, r->gives, sizeof r->gives, 0, 0},
        {"tensors", TEXT, h->unusual, sizeof h->unusual, 0, 0},
        {"layer_kind", TEXT, r->layer_kind, sizeof r->layer_kind, 0, 0},
        {"state_order", TEXT, h->recurrence.state_order, sizeof h->recurrence.state_order, 0, 0},
        {"state_dtype", TEXT, h->recurrence.state_dtype, sizeof h->recurrence.state_dtype, 0, 0},
        {"padding", TEXT, h->recurrence.padding, sizeof h->recurrence.padding, 0, 0},
        {"p0_state", TEXT, h->recurrence.p0_state, sizeof h->recurrence.p0_state, 0, 0},
        {"gated", INTEGER, &r->gated, 0, 0, 1},
        {"conv_dim", INTEGER, &i->conv_dim, 0, 1, 1 << 20},
        {"conv_kernel", INTEGER, &i->conv_kernel, 0, 2, 16},
        {"key_heads", INTEGER, &i->key_heads, 0, 1, 1024},
        {"value_heads", INTEGER, &i->value_heads, 0, 1, 1024},
        {"key_dim", INTEGER, &i->key_dim, 0, 1, EMU_MAX_HEAD_DIM},
        {"value_dim", INTEGER, &i->value_dim, 0, 1, EMU_MAX_HEAD_DIM},
        {"rope_sections", INTEGERS, &h->rope_sections, 0, 0, EMU_MAX_HEAD_DIM},
        {"rope_interleaved", INTEGER, &r->interleaved, 0, 0, 1},
        {"vision_kind", TEXT, v->kind, sizeof v->kind, 0, 0},
        {"vision_input", TEXT, v->input, sizeof v->input, 0, 0},
        {"norm", TEXT, v->norm, sizeof v->norm, 0, 0},
        {"activation", TEXT, v->act, sizeof v->act, 0, 0},
        {"merger_norm", TEXT, v->merger_norm, sizeof v->merger_norm, 0, 0},
        {"image_rows", INTEGER, &v->rows, 0, 1, 1024},
        {"image_cols", INTEGER, &v->cols, 0, 1, 1024},
        {"patch_size", INTEGER, &v->patch, 0, 1, 128},
        {"frames", INTEGER, &v->frames, 0, 1, 2},
        {"merge", INTEGER, &v->merge, 0, 1, 16},
        {"window", INTEGER, &v->window, 0, 0, 1024},
        {"merger_hidden", INTEGER, &v->mid, 0, 0, 1 << 20},
        {"out_hidden", INTEGER, &v->out, 0, 1, EMU_MAX_HIDDEN},
        {"merger_eps", REAL, &v->merger_eps, 0, 0, 1},
        {"full_blocks", INTEGERS, &v->full, 0, 0, 10000},
        {"deepstack", INTEGERS, &v->deep, 0, 0, 10000},
        {"pixel_mean", LIST, &v->mean, 0, -1000, 1000},
        {"pixel_std", LIST, &v->std, 0, 1e-6, 1000},
        {"cost_encoder_us", REAL, &h->cost_encoder, 0, 0, most_us},
        {"layer", INTEGER, &i->layer, 0, 0, 10000},
        {"layers", INTEGER, &i->layers, 0, 1, 10000},
        {"hidden", INTEGER, &i->hidden, 0, 1, EMU_MAX_HIDDEN},
        {"heads", INTEGER, &i->heads, 0, 1, 1024},
        {"kv_heads", INTEGER, &i->kv_heads, 0, 1, 1024},
        {"head_dim", INTEGER, &i->head_dim, 0, 2, EMU_MAX_HEAD_DIM},
        {"ffn", INTEGER, &i->ffn, 0, 1, 1 << 20},
        {"vocab", INTEGER, &i->vocab, 0, 1, 1 << 24},
        {"chunk", INTEGER, &i->chunk, 0, 0, 4096},
        {"rms_eps", REAL, &h->rms_eps, 0, 0, 1},
        {"rope_attention_factor", REAL, &h->rope_factor, 0, 1e-6, 1e6},
        {"attention_scale", REAL, &h->attention_scale, 0, 0, 1e6},
        {"hollow", REAL, &r->hollow, 0, 0, 1},
        {"cmm_bytes", REAL, &charged, 0, 0, 1e15},
        {"file_bytes", REAL, &published, 0, 0, 1e15},
        {"cost_decode_us", LIST, &h->cost_decode, 0, 0, most_us},
        {"cost_head_us", REAL, &h->cost_head, 0, 0, most_us},
        {"cost_chunk_us", LIST, &h->cost_chunk, 0, 0, most_us},
        {"decode_rows", INTEGERS, &h->decode_rows, 0, 1, most_rows},
        {"history", INTEGERS, &h->history, 0, 0, most_rows},
        {"head_rows", INTEGERS, &h->head_rows, 0, 1, 4096},
    };
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        if (strcmp(name, keys[k].name) != 0) continue;
        _Static_assert(sizeof keys / sizeof *keys <= sizeof r->seen, "a flag for each key");
        if (r->seen[k]) return emu_complain(r, ": metadata %s is given twice", name);
        r->seen[k] = true;
        if (store(r, &keys[k], text) != 0) return -1;
        if (keys[k].at == &charged) i->cmm_bytes = (uint64_t)charged;
        if (keys[k].at == &published) i->file_bytes = (uint64_t)published;
        return 0;
    }
    return 0; /* later versions may say more */
}

int emu_read_metadata(emu_reading *r, json_reader *json)
{
    char name[64], text[EMU_VALUE];
    bool first = true;
    if (!json_object(json)) return 0;
    while (json_key(json, &first, name, sizeof name) && json_string(json, text, sizeof text))
        if (metadata_entry(r, name, text) != 0) return -1;
    return 0; /* a JSON error is reported at the end */
}
