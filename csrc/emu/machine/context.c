/* Contexts: which device a thread's calls are for. */
#include "context.h"

#include <stdlib.h>

#include "counters.h"
#include "errors.h"
#include "handle.h"
#include "settings.h"

static _Thread_local uint64_t current;
static emu_context *closed; /* kept: another thread may be inside a call that uses one */

void emu_context_retire(emu_context *context)
{
    emu_handle_close(context->handle);
    context->next_closed = closed;
    closed = context;
}

axclError emu_context_make(emu_device *device, bool explicit_one, uint64_t *handle)
{
    emu_context *context = calloc(1, sizeof *context);
    if (context) {
        context->device = device;
        context->explicit_one = explicit_one;
        context->handle = emu_handle_new(EMU_CONTEXT, context);
    }
    *handle = context ? context->handle : 0;
    if (*handle) return 0;
    free(context);
    return emu_refuse(AXCL_ERROR(AXCL_SUB_CONTEXT, AXCL_ID_CONTEXT_CREATE), "too many contexts");
}

void emu_context_bind(uint64_t handle) { current = handle; }

/* Tolerant mode: a thread without a context uses the first device that is set. */
static emu_context *any_default(void)
{
    for (int i = 0; i < emu_num_devices; i++)
        if (emu_devices[i].default_context) return emu_handle_get(EMU_CONTEXT, emu_devices[i].default_context);
    return NULL;
}

emu_context *emu_context_current(void)
{
    emu_context *context = emu_handle_get(EMU_CONTEXT, current);
    return context || emu_config.strict ? context : any_default();
}

typedef struct wipe {
    emu_device *device;
    bool report;
} wipe;

static void close_one(uint64_t handle, void *object, void *arg)
{
    wipe *w = arg;
    emu_context *context = object;
    if (context->device != w->device) return;
    if (w->report && context->explicit_one) emu_leak("context %#llx was not destroyed", (unsigned long long)handle);
    emu_context_retire(context);
}

void emu_contexts_wipe(emu_device *device, bool report)
{
    wipe w = {device, report};
    emu_handle_each(EMU_CONTEXT, close_one, &w);
    device->default_context = 0;
}
