/* The exported functions on contexts. */
#include "../machine/context.h"
#include "../machine/errors.h"
#include "../machine/handle.h"
#include "enter.h"

static axclError context_error(int id, const char *text)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_CONTEXT, id), "%s", text);
}

axclError axclrtCreateContext(axclrtContext *out, int32_t id)
{
    axclError error = emu_enter(EMU_FN_axclrtCreateContext, EMU_NEEDS_INIT, NULL);
    uint64_t handle = 0;
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_CONTEXT, AXCL_ID_NULL_POINTER);
    pthread_mutex_lock(&emu_lifecycle);
    emu_device *device = emu_device_by_id(id);
    if (!device)
        error = emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_DEVICE_INVALID_ID), "there is no device %d", (int)id);
    else if (!device->set_count)
        error = emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_DEVICE_NOT_ACTIVE),
            "axclrtSetDevice(%d) comes before its contexts", (int)id);
    else if (!(error = emu_offline_error(device))) error = emu_context_make(device, true, &handle);
    pthread_mutex_unlock(&emu_lifecycle);
    if (!error) {
        emu_context_bind(handle); /* a new context is the thread's current one */
        *out = emu_as_pointer(handle);
    }
    return error;
}

axclError axclrtDestroyContext(axclrtContext handle)
{
    axclError error = emu_enter(EMU_FN_axclrtDestroyContext, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    pthread_mutex_lock(&emu_lifecycle);
    emu_context *context = emu_handle_get(EMU_CONTEXT, emu_as_number(handle));
    if (!context)
        error = context_error(AXCL_ID_CONTEXT_DESTROY,
            "axclrtDestroyContext got no context of ours, or one already destroyed");
    else if (!context->explicit_one)
        error = context_error(AXCL_ID_CONTEXT_DESTROY, "a device's default context ends with axclrtResetDevice only");
    else emu_context_retire(context);
    pthread_mutex_unlock(&emu_lifecycle);
    return error;
}

axclError axclrtSetCurrentContext(axclrtContext handle)
{
    axclError error = emu_enter(EMU_FN_axclrtSetCurrentContext, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    if (!handle) return AXCL_ERROR(AXCL_SUB_CONTEXT, AXCL_ID_NULL_POINTER);
    if (!emu_handle_get(EMU_CONTEXT, emu_as_number(handle)))
        return context_error(AXCL_ID_CONTEXT_BIND,
            "axclrtSetCurrentContext got no context of ours, or one destroyed or reset with its device");
    emu_context_bind(emu_as_number(handle));
    return 0;
}

axclError axclrtGetCurrentContext(axclrtContext *out)
{
    axclError error = emu_enter(EMU_FN_axclrtGetCurrentContext, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_CONTEXT, AXCL_ID_NULL_POINTER);
    emu_context *context = emu_context_current();
    if (!context) return context_error(AXCL_ID_CONTEXT_NONE_BOUND, "this thread has no context");
    *out = emu_as_pointer(context->handle);
    return 0;
}

axclError axclrtGetDefaultContext(axclrtContext *out, int32_t id)
{
    axclError error = emu_enter(EMU_FN_axclrtGetDefaultContext, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_CONTEXT, AXCL_ID_NULL_POINTER);
    emu_device *device = emu_device_by_id(id);
    if (!device || !device->default_context)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_DEVICE_NOT_ACTIVE),
            "device %d has no default context before axclrtSetDevice", (int)id);
    *out = emu_as_pointer(device->default_context);
    return 0;
}
