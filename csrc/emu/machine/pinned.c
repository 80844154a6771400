/* Pinned host memory: ordinary memory, but known, so that transfers from it are fast and overruns are caught. */
#include "emu.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 4096

typedef struct block {
    uint8_t *data;
    size_t size;
} block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static block *blocks; /* by address */
static size_t count, capacity;
static uint64_t used;

static axclError pinned_error(int id, const char *text) { return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, id), "%s", text); }

/* Index of the first block that ends behind pointer. */
static size_t search(const uint8_t *pointer)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (blocks[mid].data + blocks[mid].size > pointer) high = mid;
        else low = mid + 1;
    }
    return low;
}

bool emu_pinned_find(const void *pointer, size_t *available)
{
    const uint8_t *p = pointer;
    pthread_mutex_lock(&lock);
    size_t i = search(p);
    bool found = i < count && blocks[i].data <= p;
    if (found) *available = (size_t)(blocks[i].data + blocks[i].size - p);
    pthread_mutex_unlock(&lock);
    return found;
}

uint64_t emu_pinned_used(void)
{
    pthread_mutex_lock(&lock);
    uint64_t n = used;
    pthread_mutex_unlock(&lock);
    return n;
}

static bool add(uint8_t *data, size_t size)
{
    if (count == capacity) {
        size_t larger = capacity ? 2 * capacity : 64;
        block *grown = realloc(blocks, larger * sizeof *grown);
        if (!grown) return false;
        blocks = grown, capacity = larger;
    }
    size_t i = search(data);
    memmove(blocks + i + 1, blocks + i, (count - i) * sizeof *blocks);
    blocks[i] = (block){data, size};
    count++, used += size;
    return true;
}

axclError axclrtMallocHost(void **out, size_t size)
{
    emu_device *device;
    axclError error = emu_enter(EMU_FN_axclrtMallocHost, EMU_NEEDS_CONTEXT, &device);
    if (error) return error;
    if (!out) return AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_NULL_POINTER);
    *out = NULL;
    if (!size || size > (1ull << 40)) return pinned_error(AXCL_ID_ILLEGAL_PARAM, "axclrtMallocHost needs a size from 1 byte to 1 TiB");
    void *data = NULL;
    if (posix_memalign(&data, ALIGNMENT, size)) return pinned_error(AXCL_ID_NO_MEMORY, "the host is out of memory");
    memset(data, 0xA5, size); /* nothing says that it is zero */
    pthread_mutex_lock(&lock);
    bool added = add(data, size);
    pthread_mutex_unlock(&lock);
    if (!added) {
        free(data);
        return pinned_error(AXCL_ID_NO_MEMORY, "the host is out of memory");
    }
    *out = data;
    return 0;
}

axclError axclrtFreeHost(void *pointer)
{
    size_t available;
    axclError error = emu_enter(EMU_FN_axclrtFreeHost, EMU_NEEDS_INIT, NULL); /* also while the device is offline */
    if (error) return error;
    if (!pointer) return AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_NULL_POINTER);
    if (emu_config.strict && emu_pinned_find(pointer, &available) && emu_stream_uses(pointer, available))
        return pinned_error(AXCL_ID_BUSY, "axclrtFreeHost of memory that queued work still uses: synchronise the stream first");
    pthread_mutex_lock(&lock);
    size_t i = search(pointer);
    bool found = i < count && blocks[i].data == pointer;
    if (found) {
        used -= blocks[i].size;
        memmove(blocks + i, blocks + i + 1, (--count - i) * sizeof *blocks);
    }
    pthread_mutex_unlock(&lock);
    if (!found) return pinned_error(AXCL_ID_ILLEGAL_PARAM, "axclrtFreeHost got no base pointer of pinned memory, or one already freed");
    free(pointer);
    return 0;
}

/* At axclFinalize: what is left is named, and stays readable, since views of it may be around. */
void emu_pinned_wipe(bool report)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count && report; i++) emu_leak("pinned host memory, %zu bytes, was not freed", blocks[i].size);
    free(blocks);
    blocks = NULL, count = capacity = 0, used = 0;
    pthread_mutex_unlock(&lock);
}
