/* Pinned host memory: ordinary memory, but known, so that transfers from it are fast and overruns are caught. */
#include "pinned.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "counters.h"

#define ALIGNMENT 4096

typedef struct block {
    uint8_t *data;
    size_t size;
} block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static block *blocks; /* by address */
static size_t count, capacity;
static uint64_t used;

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

void *emu_pinned_allocate(size_t size)
{
    void *data = NULL;
    if (posix_memalign(&data, ALIGNMENT, size)) return NULL;
    memset(data, 0xA5, size); /* nothing says that it is zero */
    pthread_mutex_lock(&lock);
    bool added = add(data, size);
    pthread_mutex_unlock(&lock);
    if (added) return data;
    free(data);
    return NULL;
}

bool emu_pinned_free(void *pointer)
{
    pthread_mutex_lock(&lock);
    size_t i = search(pointer);
    bool found = i < count && blocks[i].data == pointer;
    if (found) {
        used -= blocks[i].size;
        memmove(blocks + i, blocks + i + 1, (--count - i) * sizeof *blocks);
    }
    pthread_mutex_unlock(&lock);
    if (found) free(pointer);
    return found;
}

/* At axclFinalize: what is left is named, and stays readable, since views of it may be around. */
void emu_pinned_wipe(bool report)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count && report; i++)
        emu_leak("pinned host memory, %zu bytes, was not freed", blocks[i].size);
    free(blocks);
    blocks = NULL, count = capacity = 0, used = 0;
    pthread_mutex_unlock(&lock);
}
