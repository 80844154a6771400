/* Handles: a slot number and how often the slot was used, under a tag that makes them no host addresses. */
#include "handle.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#define NUM_SLOTS 65536u
#define TAG 0x00AD000000000000ull /* not canonical on x86-64, outside the user range on arm64 */

typedef struct slot {
    _Atomic uint64_t handle; /* 0: free */
    void *_Atomic object;
    uint32_t uses;
} slot;

static slot slots[NUM_SLOTS];
static uint32_t num_opened, free_slots[NUM_SLOTS], num_free;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

uint64_t emu_handle_new(emu_kind kind, void *object)
{
    uint64_t handle = 0;
    pthread_mutex_lock(&lock);
    if (num_free || num_opened < NUM_SLOTS) {
        uint32_t i = num_free ? free_slots[--num_free] : num_opened++;
        uint64_t uses = ++slots[i].uses & 0xFFFFFFu;
        /* models are known by numbers, everything else by pointers */
        uint64_t tag = kind == EMU_MODEL || kind == EMU_ENGINE_CONTEXT ? 0 : TAG;
        handle = tag | (uint64_t)kind << 40 | uses << 16 | i;
        atomic_store(&slots[i].object, object);
        atomic_store(&slots[i].handle, handle);
    }
    pthread_mutex_unlock(&lock);
    return handle;
}

void *emu_handle_get(emu_kind kind, uint64_t handle)
{
    slot *s = &slots[handle & (NUM_SLOTS - 1)];
    if (!handle || (handle >> 40 & 0xF) != (uint64_t)kind) return NULL;
    if (atomic_load_explicit(&s->handle, memory_order_acquire) != handle) return NULL;
    return atomic_load_explicit(&s->object, memory_order_relaxed);
}

bool emu_handle_close(uint64_t handle)
{
    uint32_t i = handle & (NUM_SLOTS - 1);
    pthread_mutex_lock(&lock);
    bool open = handle && atomic_load(&slots[i].handle) == handle;
    if (open) {
        atomic_store(&slots[i].handle, 0);
        free_slots[num_free++] = i;
    }
    pthread_mutex_unlock(&lock);
    return open;
}

void emu_handle_each(emu_kind kind, void (*visit)(uint64_t, void *, void *), void *arg)
{
    pthread_mutex_lock(&lock);
    uint32_t n = num_opened;
    pthread_mutex_unlock(&lock);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t handle = atomic_load(&slots[i].handle);
        void *object = handle ? emu_handle_get(kind, handle) : NULL;
        if (object) visit(handle, object, arg);
    }
}
