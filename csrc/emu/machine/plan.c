/* Plans: the bindings of an IO for one shape group, checked against the rules and resolved to host memory.
 *
 * A plan is kept by its IO and brought up to date when a binding, the settings or the set of allocations changed, so
 * that an execute with nothing new costs nothing, and one with a new K/V row costs two look-ups.
 */
#include "plan.h"

#include <stdlib.h>

#include "errors.h"
#include "handle.h"
#include "settings.h"

#define ILLEGAL AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ILLEGAL_PARAM)
#define OUTPUT_BIT(i) (1u << (EMU_MAX_TENSORS + (i)))
#define NARROW 64 /* chunk groups below this width leave `output` unwritten on some builds */
#define ALIGNMENT 2048u /* of the addresses at which K/V rows in place were seen to work */

void emu_plan_release(emu_plan *plan)
{
    if (atomic_fetch_sub(&plan->references, 1) > 1) return;
    for (int i = 0; i < EMU_MAX_TENSORS; i++) {
        free(plan->in_scratch[i]);
        free(plan->out_scratch[i]);
    }
    emu_loaded_release(plan->loaded);
    free(plan);
}

/* ---- one binding ------------------------------------------------------------------------------------------------- */

static const char *tensor_name(const emu_plan *plan, bool output, int i)
{
    return (output ? emu_model_output(plan->loaded->model, i) : emu_model_input(plan->loaded->model, i))->name;
}

/* The sentence for a refused binding: model, group and tensor, then what is wrong. */
static axclError wrong(const emu_plan *plan, bool output, int i, const char *what)
{
    return emu_refuse(ILLEGAL, "%s, group %d, %s %s: %s", plan->loaded->name, plan->group, output ? "output" : "input",
        tensor_name(plan, output, i), what);
}

/* Whether an output is rows of K or V: those have rules of their own, the states of recurrent layers have not. */
static bool is_kv_output(const emu_plan *plan, int i)
{
    const emu_model_info *info = plan->loaded->info;
    return info->kind == EMU_LAYER && !info->recurrent && (i == EMU_OUT_K || i == EMU_OUT_V);
}

/* Rows of K and V may go into the middle of a cache, on a row's boundary; everything else begins its own allocation. */
static axclError check_strict(const emu_plan *plan, bool output, int i, const emu_binding *b, const emu_range *range,
    uint64_t need)
{
    uint64_t tokens = (uint64_t)emu_model_group(plan->loaded->model, plan->group)->tokens;
    uint64_t row = need < tokens ? 1 : need / tokens;
    if (range->alloc->device != plan->loaded->device) return wrong(plan, output, i, "the memory is on another device");
    if (b->size != need) return wrong(plan, output, i, "the bound size is not the size the group asks for");
    if (range->available < need) return wrong(plan, output, i, "the bound size reaches past the allocation");
    if (!range->offset) return 0;
    if (!output || !is_kv_output(plan, i))
        return wrong(plan, output, i, "the pointer is inside an allocation: the card would read stale data");
    return range->offset % row ? wrong(plan, output, i, "the pointer is not on a row's boundary") : 0;
}

static axclError stand_in(uint8_t **scratch, uint64_t size)
{
    *scratch = calloc(1, size);
    return *scratch ? 0 : emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NO_MEMORY), "the host is out of memory");
}

static axclError resolve(emu_plan *plan, bool output, int i)
{
    const emu_binding *b = output ? &plan->io->out[i] : &plan->io->in[i];
    emu_range *range = output ? &plan->out[i] : &plan->in[i];
    uint8_t **scratch = output ? &plan->out_scratch[i] : &plan->in_scratch[i];
    uint64_t need = output ? plan->out_bytes[i] : plan->in_bytes[i];
    axclError error;
    free(*scratch);
    *scratch = NULL;
    *range = (emu_range){NULL, NULL, 0, 0};
    if (!b->size) return emu_config.strict ? wrong(plan, output, i, "nothing is bound") : stand_in(scratch, need);
    if ((error = emu_memory_find(emu_as_pointer(b->address), tensor_name(plan, output, i), range))) return error;
    if (emu_config.strict) return check_strict(plan, output, i, b, range, need);
    if (output) plan->out_kept[i] = range->available < need ? range->available : need;
    return range->available < need ? stand_in(scratch, need) : 0;
}

/* ---- all bindings together --------------------------------------------------------------------------------------- */

static bool overlap(const emu_range *a, uint64_t size_a, const emu_range *b, uint64_t size_b)
{
    return a->host && b->host && a->host < b->host + size_b && b->host < a->host + size_a;
}

static axclError check_pairs(const emu_plan *plan)
{
    for (int i = 0; i < plan->num_in; i++)
        for (int j = i + 1; j < plan->num_in; j++)
            if (plan->in[i].alloc == plan->in[j].alloc)
                return wrong(plan, false, j, "it shares its allocation with another input");
    for (int o = 0; o < plan->num_out; o++) {
        for (int i = 0; i < plan->num_in; i++) {
            /* K_cache_out in K_cache, V_cache_out in V_cache */
            bool own_cache = is_kv_output(plan, o) && o == i;
            if (!own_cache && overlap(&plan->out[o], plan->out_bytes[o], &plan->in[i], plan->in_bytes[i]))
                return wrong(plan, true, o, "it overlaps an input: a model must not write what it reads");
        }
        for (int p = o + 1; p < plan->num_out; p++)
            if (overlap(&plan->out[o], plan->out_bytes[o], &plan->out[p], plan->out_bytes[p]))
                return wrong(plan, true, p, "it overlaps another output");
    }
    return 0;
}

/* K/V rows bound in place: they work, are lost (the row keeps what it held), land on the boundary below, or are
 * refused, as the settings say. */
static axclError apply_in_place(emu_plan *plan, int o)
{
    emu_range *out = &plan->out[o];
    if (!out->alloc) return 0;
    bool decode = emu_model_group(plan->loaded->model, plan->group)->kind == EMU_GROUP_DECODE;
    bool in_place = out->offset || out->alloc == plan->in[EMU_IN_K].alloc || out->alloc == plan->in[EMU_IN_V].alloc;
    size_t past = (out->alloc->address + out->offset) % ALIGNMENT;
    int way = decode ? emu_config.inplace_decode : emu_config.inplace_chunk;
    bool unaligned = decode && past && way == EMU_INPLACE_WORKS;
    if (unaligned) way = emu_config.inplace_unaligned;
    if (!in_place || way == EMU_INPLACE_WORKS) return 0;
    if (way == EMU_INPLACE_ERROR)
        return wrong(plan, true, o,
            unaligned ? "in place works at multiples of 2 KiB only: bind an own buffer and copy"
            : decode ? "in place is switched off for decode"
            : "in place does not work for chunks: bind an own buffer and copy");
    if (way == EMU_INPLACE_DOWN) { /* allocations begin on a boundary */
        out->host -= past, out->offset -= past, out->available += past;
        return 0;
    }
    plan->out_kept[o] = 0;
    return plan->out_scratch[o] ? 0 : stand_in(&plan->out_scratch[o], plan->out_bytes[o]);
}

static axclError check_all(emu_plan *plan)
{
    const emu_group *group = emu_model_group(plan->loaded->model, plan->group);
    axclError error = emu_config.strict ? check_pairs(plan) : 0;
    if (error || group->kind == EMU_GROUP_HEAD) return error;
    for (int o = 0; o < plan->num_out && !error; o++)
        if (is_kv_output(plan, o)) error = apply_in_place(plan, o);
    if (!error && group->kind == EMU_GROUP_CHUNK && group->tokens < NARROW && !emu_config.narrow_output) {
        plan->out_kept[EMU_OUT_OUTPUT] = 0;
        if (!plan->out_scratch[EMU_OUT_OUTPUT])
            error = stand_in(&plan->out_scratch[EMU_OUT_OUTPUT], plan->out_bytes[EMU_OUT_OUTPUT]);
    }
    return error;
}

/* ---- making and refreshing --------------------------------------------------------------------------------------- */

static emu_plan *new_plan(emu_io *io, emu_loaded *loaded, int group)
{
    emu_plan *plan = calloc(1, sizeof *plan);
    if (!plan) return NULL;
    plan->references = 1;
    plan->loaded = loaded, plan->io = io, plan->group = group;
    plan->num_in = loaded->info->num_inputs, plan->num_out = loaded->info->num_outputs;
    for (int i = 0; i < plan->num_in; i++) plan->in_bytes[i] = emu_model_input(loaded->model, i)->shape[group].bytes;
    for (int i = 0; i < plan->num_out; i++) plan->out_bytes[i] = emu_model_output(loaded->model, i)->shape[group].bytes;
    plan->dirty = ~0u;
    atomic_fetch_add(&loaded->references, 1);
    return plan;
}

static axclError refresh(emu_plan *plan)
{
    axclError error = 0;
    uint64_t epoch = plan->loaded->device->memory.epoch;
    unsigned settings = emu_settings_version;
    if (plan->epoch != epoch || plan->settings != settings) plan->dirty = ~0u;
    if (!plan->dirty) return 0;
    for (int i = 0; i < plan->num_in && !error; i++)
        if (plan->dirty & 1u << i) error = resolve(plan, false, i);
    for (int i = 0; i < plan->num_out && !error; i++)
        if (plan->dirty & OUTPUT_BIT(i)) error = resolve(plan, true, i);
    if (!error) error = check_all(plan);
    plan->epoch = epoch, plan->settings = settings;
    plan->dirty = error ? ~0u : 0;
    plan->last_writes = 0;
    return error;
}

axclError emu_plan_get(emu_io *io, emu_loaded *loaded, int group, emu_plan **out)
{
    emu_plan *plan = io->plans[group];
    bool current = plan && plan->loaded == loaded && !plan->dirty && plan->epoch == loaded->device->memory.epoch
        && plan->settings == emu_settings_version;
    /* one that queued work still uses must not change under it */
    if (!current && (!plan || plan->loaded != loaded || plan->references > 1)) {
        if (plan) emu_plan_release(plan);
        io->plans[group] = plan = new_plan(io, loaded, group);
        if (!plan) return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_NO_MEMORY), "the host is out of memory");
    }
    axclError error = current ? 0 : refresh(plan);
    if (error) return error;
    atomic_fetch_add(&plan->references, 1);
    *out = plan;
    return 0;
}
