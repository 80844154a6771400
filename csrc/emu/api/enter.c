/* The checks that every exported function begins with. */
#include "enter.h"

#include "../machine/context.h"
#include "../machine/counters.h"
#include "../machine/errors.h"
#include "../machine/faults.h"
#include "../machine/settings.h"
#include "../machine/stream.h"

/* Whether the runtime of this generation of cards has the function. */
static bool exists(emu_fn fn)
{
    switch (fn) {
    case EMU_FN_axclrtGetDeviceList:
    case EMU_FN_axclrtGetDeviceProperties:
    case EMU_FN_axclrtRebootDevice:
    case EMU_FN_axclrtEngineSetContextAffinity:
        return !emu_config.ax8860;
    case EMU_FN_axclrtGetDeviceInfo:
    case EMU_FN_axclrtGetMemInfo:
    case EMU_FN_axclrtQueryDeviceStatus:
        return emu_config.ax8860;
    default:
        return true;
    }
}

static axclError begin(emu_fn fn, emu_need need)
{
    emu_count_call(fn);
    axclError error = emu_fault_call(fn);
    if (error || need == EMU_NEEDS_NOTHING) return error;
    if (!exists(fn))
        return emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_UNSUPPORTED), "the runtime of %s has no %s",
            emu_config.ax8860 ? "AX8860" : "AX650", emu_fn_name(fn));
    if (emu_initialised) return 0;
    return emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_DEVICE_NO_ACTIVE), "%s was called before axclInit",
        emu_fn_name(fn));
}

static axclError use(emu_fn fn, emu_device *device)
{
    axclError error = emu_offline_error(device);
    if (error) emu_fault_offline(fn);
    return error;
}

static axclError no_context(emu_fn fn)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_CONTEXT, AXCL_ID_CONTEXT_NONE_BOUND),
        "%s was called by a thread without a context: call axclrtSetDevice or axclrtSetCurrentContext first",
        emu_fn_name(fn));
}

axclError emu_enter(emu_fn fn, emu_need need, emu_device **device)
{
    axclError error = begin(fn, need);
    if (error || need != EMU_NEEDS_CONTEXT) return error;
    emu_context *context = emu_context_current();
    if (!context) return no_context(fn);
    *device = context->device;
    return use(fn, *device);
}

axclError emu_enter_stream(emu_fn fn, axclrtStream handle, emu_device **device)
{
    axclError error = begin(fn, EMU_NEEDS_CONTEXT);
    if (error) return error;
    emu_context *context = emu_context_current();
    *device = context ? context->device : NULL;
    if (!context) {
        emu_stream *stream = handle ? emu_stream_retain(handle) : NULL;
        if (!handle) return no_context(fn); /* a thread's default stream is its context's */
        if (!stream) return AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_ILLEGAL_PARAM);
        *device = emu_stream_device(stream);
        emu_stream_release(stream);
    }
    return use(fn, *device);
}
