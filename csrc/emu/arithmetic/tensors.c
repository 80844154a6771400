/* Tensors of hollow models that differ from the usual ones: other types, other shapes, more inputs and outputs, so that
 * programs can be shown what they must refuse. Metadata `tensors`, entries separated by ';':
 *
 *   [+|>]NAME[@GROUP]=[TYPE][:DIMxDIM...]
 *
 * TYPE is the tensor's in all groups, the dimensions are those of GROUP or of all. '+' adds an input of that name, '>'
 * an output, where there is none yet. Example: K_cache=int8; indices@1=:1x3x128; +per_layer_input=bf16:1x1x256
 */
#include <stdio.h>
#include <stdlib.h>

#include "model_impl.h"

#define MAX_DIM (1 << 24)
#define MAX_BYTES (1ull << 40)

typedef struct change {
    char name[32], type[8];
    char prefix;
    long group; /* -1: all */
    emu_tensor_shape shape; /* ndims 0: as they are */
} change;

typedef struct element {
    const char *name;
    int type;
    unsigned bytes;
} element;

static const element elements[] = {
    {"int8", EMU_TYPE_INT8, 1}, {"uint8", EMU_TYPE_UINT8, 1}, {"int16", EMU_TYPE_INT16, 2},
    {"uint16", EMU_TYPE_UINT16, 2}, {"int32", EMU_TYPE_INT32, 4}, {"uint32", EMU_TYPE_UINT32, 4},
    {"fp16", EMU_TYPE_FP16, 2}, {"bf16", EMU_TYPE_BF16, 2}, {"fp32", EMU_TYPE_FP32, 4}};

/* By name, or by type where there is none; NULL: unknown. */
static const element *find_element(const char *name, int type)
{
    for (size_t i = 0; i < sizeof elements / sizeof *elements; i++)
        if (*name ? strcmp(elements[i].name, name) == 0 : elements[i].type == type) return &elements[i];
    return NULL;
}

/* Letters, digits and underscores up to something else. */
static const char *word(const char *s, char *out, size_t size)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    if (n >= size) return NULL;
    memcpy(out, s, n);
    out[n] = 0;
    return s + n;
}

static const char *whole(const char *s, long least, long most, long *out)
{
    char *end;
    *out = strtol(s, &end, 10);
    return end != s && *out >= least && *out <= most ? end : NULL;
}

/* One entry without the spaces around it; where it ends, or NULL. */
static const char *parse(const char *s, int num_groups, change *c)
{
    *c = (change){.group = -1};
    if (*s == '+' || *s == '>') c->prefix = *s++;
    if (!(s = word(s, c->name, sizeof c->name)) || !c->name[0]) return NULL;
    if (*s == '@' && !(s = whole(s + 1, 0, num_groups - 1, &c->group))) return NULL;
    if (*s != '=' || !(s = word(s + 1, c->type, sizeof c->type))) return NULL;
    for (char mark = ':'; *s == mark; mark = 'x') {
        long dim;
        if (c->shape.ndims == EMU_MAX_DIMS || !(s = whole(s + 1, 1, MAX_DIM, &dim))) return NULL;
        c->shape.dims[c->shape.ndims++] = (int32_t)dim;
    }
    return c->shape.ndims || c->type[0] ? s : NULL;
}

static emu_tensor *find(emu_tensor *tensors, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(tensors[i].name, name) == 0) return &tensors[i];
    return NULL;
}

/* The tensor an entry is about; NULL: unknown, or too many. */
static emu_tensor *target(emu_model *m, const change *c)
{
    emu_tensor *t = c->prefix == '>' ? NULL : find(m->inputs, m->info.num_inputs, c->name);
    if (!t && c->prefix != '+') t = find(m->outputs, m->info.num_outputs, c->name);
    if (t || !c->prefix) return t;
    int *count = c->prefix == '+' ? &m->info.num_inputs : &m->info.num_outputs;
    if (*count == EMU_MAX_TENSORS || !c->shape.ndims || !c->type[0] || c->group >= 0) return NULL;
    t = &(c->prefix == '+' ? m->inputs : m->outputs)[(*count)++];
    memcpy(t->name, c->name, sizeof t->name);
    return t;
}

static bool apply(const change *c, emu_tensor *t, int num_groups)
{
    const element *e = find_element(c->type, t->type);
    if (!e) return false;
    t->type = e->type;
    for (int g = 0; g < num_groups; g++) {
        emu_tensor_shape *s = &t->shape[g];
        if (c->shape.ndims && (c->group < 0 || c->group == g)) *s = c->shape;
        s->bytes = e->bytes;
        for (int d = 0; d < s->ndims; d++)
            if ((s->bytes *= (uint64_t)s->dims[d]) > MAX_BYTES) return false;
    }
    return true;
}

/* The entry at s, applied; where it ends, or NULL. */
static const char *change_one(emu_model *m, const char *s)
{
    change c;
    const char *end = parse(s, m->info.num_groups, &c);
    if (!end) return NULL;
    end += strspn(end, " ");
    emu_tensor *t = *end && *end != ';' ? NULL : target(m, &c);
    return t && apply(&c, t, m->info.num_groups) ? end : NULL;
}

int emu_tensors_change(emu_model *m, const char *text, const char *name, char err[EMU_ERR])
{
    for (const char *s = text + strspn(text, "; "), *end; *s; s = end + strspn(end, "; ")) {
        m->unusual = true;
        if ((end = change_one(m, s))) continue;
        size_t length = strcspn(s, ";");
        snprintf(err, EMU_ERR, "%.120s: metadata tensors: \"%.*s\" is not [+|>]NAME[@GROUP]=[TYPE][:DIMxDIM...] of a"
            " tensor that is there or can be added", name, (int)(length < 50 ? length : 50), s);
        return -1;
    }
    return 0;
}
