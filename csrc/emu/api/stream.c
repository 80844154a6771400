/* The exported functions on streams: making and destroying them, synchronising. */
#include "../machine/counters.h"
#include "../machine/errors.h"
#include "../machine/handle.h"
#include "../machine/pacing.h"
#include "../machine/stream.h"
#include "enter.h"

static axclError stream_error(int id, const char *text)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_STREAM, id), "%s", text);
}

axclError axclrtCreateStream(axclrtStream *out)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtCreateStream, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_NULL_POINTER);
    uint64_t handle = 0;
    if ((error = emu_stream_make(device, &handle))) return error;
    *out = emu_as_pointer(handle);
    return 0;
}

static axclError destroy(emu_fn fn, axclrtStream handle, bool force)
{
    axclError error = emu_enter(fn, EMU_NEEDS_INIT, NULL);
    if (error) return error;
    emu_stream *s = emu_stream_retain(handle);
    if (!s) return AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_STREAM_DESTROY);
    emu_stream_end(s, force);
    emu_stream_release(s);
    return 0;
}

axclError axclrtDestroyStream(axclrtStream stream) { return destroy(EMU_FN_axclrtDestroyStream, stream, false); }
axclError axclrtDestroyStreamForce(axclrtStream stream)
{
    return destroy(EMU_FN_axclrtDestroyStreamForce, stream, true);
}

axclError axclrtSynchronizeStream(axclrtStream handle)
{
    emu_device *device;
    axclError error = emu_enter_stream(EMU_FN_axclrtSynchronizeStream, handle, &device);
    if (error) return error;
    emu_stream *s = emu_stream_retain(handle);
    if (!s) return AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_ILLEGAL_PARAM);
    emu_count_add(EMU_COUNT_WAITS, 1);
    error = emu_stream_synchronise(s, (emu_fault){EMU_FAULT_NONE, 0, 0}, 0);
    emu_stream_release(s);
    return error;
}

axclError axclrtSynchronizeStreamWithTimeout(axclrtStream handle, int32_t timeout_ms)
{
    emu_device *device;
    axclError error = emu_enter_stream(EMU_FN_axclrtSynchronizeStreamWithTimeout, handle, &device);
    emu_fault fault = emu_fault_armed();
    if (error) return error;
    if (timeout_ms < -1)
        return stream_error(AXCL_ID_ILLEGAL_PARAM, "a time-out is -1 (forever) or milliseconds from 0");
    emu_stream *s = emu_stream_retain(handle);
    if (!s) return AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_ILLEGAL_PARAM);
    emu_count_add(EMU_COUNT_WAITS, 1);
    int64_t deadline = timeout_ms < 0 ? 0 : emu_now() + (int64_t)timeout_ms * 1000000;
    error = emu_stream_synchronise(s, fault, deadline);
    emu_stream_release(s);
    return error;
}

axclError axclrtSynchronizeDevice(void)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtSynchronizeDevice, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    emu_count_add(EMU_COUNT_WAITS, 1);
    return emu_streams_wait(device, true);
}
