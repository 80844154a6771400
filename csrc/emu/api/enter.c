/* The checks that every exported function begins with. */
#include "enter.h"

#include "../machine/context.h"
#include "../machine/counters.h"
#include "../machine/errors.h"
#include "../machine/faults.h"

axclError emu_enter(emu_fn fn, emu_need need, emu_device **device)
{
    emu_count_call(fn);
    axclError error = emu_fault_call(fn);
    if (error || need == EMU_NEEDS_NOTHING) return error;
    if (!emu_initialised)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_DEVICE_NO_ACTIVE), "%s was called before axclInit",
            emu_fn_name(fn));
    if (need == EMU_NEEDS_INIT) return 0;
    emu_context *context = emu_context_current();
    if (!context)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_CONTEXT, AXCL_ID_CONTEXT_NONE_BOUND),
            "%s was called by a thread without a context: call axclrtSetDevice or axclrtSetCurrentContext first",
            emu_fn_name(fn));
    *device = context->device;
    if ((error = emu_offline_error(context->device))) emu_fault_offline(fn);
    return error;
}
