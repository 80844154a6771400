/* The exported functions on device memory and pinned host memory; copy.c moves what is in them. */
#include "../machine/errors.h"
#include "../machine/handle.h"
#include "../machine/pinned.h"
#include "../machine/settings.h"
#include "../machine/stream.h"
#include "enter.h"

static axclError memory_error(int id, const char *text)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, id), "%s", text);
}

static axclError allocate(emu_fn fn, void **out, size_t size, axclrtMemMallocPolicy policy)
{
    emu_device *device;
    axclError error = emu_enter(fn, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_NULL_POINTER);
    *out = NULL;
    if (!size || (unsigned)policy > AXCL_MEM_SIZE_ALIGN)
        return memory_error(AXCL_ID_ILLEGAL_PARAM, "axclrtMalloc needs a size above 0 and a policy from 0 to 3");
    uint64_t address = 0;
    error = emu_memory_allocate(device, size, &address);
    *out = emu_as_pointer(address);
    return error;
}

axclError axclrtMalloc(void **out, size_t size, axclrtMemMallocPolicy policy)
{
    return allocate(EMU_FN_axclrtMalloc, out, size, policy);
}

axclError axclrtMallocCached(void **out, size_t size, axclrtMemMallocPolicy policy)
{
    return allocate(EMU_FN_axclrtMallocCached, out, size, policy);
}

axclError axclrtFree(void *pointer)
{
    emu_device *device;
    emu_range range;
    axclError error = emu_enter(EMU_FN_axclrtFree, EMU_NEEDS_CONTEXT, &device);
    if (error || (error = emu_memory_find(pointer, "the pointer to free", &range))) return error;
    if (range.offset)
        return memory_error(AXCL_ID_ILLEGAL_PARAM,
            "axclrtFree takes the base pointer of an allocation, not one inside it");
    if (emu_config.strict && emu_stream_uses(range.host, range.alloc->size))
        return memory_error(AXCL_ID_BUSY,
            "axclrtFree of memory that queued work still uses: synchronise the stream first");
    return emu_memory_free(range.alloc, emu_as_number(pointer));
}

/* Caches are coherent here: only the range is checked. */
static axclError check_cached(emu_fn fn, void *pointer, size_t size)
{
    emu_device *device;
    emu_range range;
    axclError error = emu_enter(fn, EMU_NEEDS_CONTEXT, &device);
    if (error || (error = emu_memory_find(pointer, "the pointer", &range))) return error;
    if (size > range.available && emu_config.strict)
        return memory_error(AXCL_ID_ILLEGAL_PARAM, "the size reaches past the allocation");
    return 0;
}

axclError axclrtMemFlush(void *pointer, size_t size) { return check_cached(EMU_FN_axclrtMemFlush, pointer, size); }
axclError axclrtMemInvalidate(void *pointer, size_t size)
{
    return check_cached(EMU_FN_axclrtMemInvalidate, pointer, size);
}

/* ---- pinned ------------------------------------------------------------------------------------------------------ */

axclError axclrtMallocHost(void **out, size_t size)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtMallocHost, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_NULL_POINTER);
    *out = NULL;
    if (!size || size > (1ull << 40))
        return memory_error(AXCL_ID_ILLEGAL_PARAM, "axclrtMallocHost needs a size from 1 byte to 1 TiB");
    *out = emu_pinned_allocate(size);
    return *out ? 0 : memory_error(AXCL_ID_NO_MEMORY, "the host is out of memory");
}

axclError axclrtFreeHost(void *pointer)
{
    size_t available;
    axclError error = emu_enter(EMU_FN_axclrtFreeHost, EMU_NEEDS_INIT, NULL); /* also while the device is offline */
    if (error) return error;
    if (!pointer) return AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_NULL_POINTER);
    if (emu_config.strict && emu_pinned_find(pointer, &available) && emu_stream_uses(pointer, available))
        return memory_error(AXCL_ID_BUSY,
            "axclrtFreeHost of memory that queued work still uses: synchronise the stream first");
    if (emu_pinned_free(pointer)) return 0;
    return memory_error(AXCL_ID_ILLEGAL_PARAM,
        "axclrtFreeHost got no base pointer of pinned memory, or one already freed");
}
