/* Device memory. A device address is a number in a range that no host pointer can have; behind it lies one lazily
 * mapped arena per device, as large as the card's memory and more. Freed addresses are not given out again before the
 * whole range was used, so late users are caught. The card does not zero memory: a fresh allocation reads as poison
 * (bf16 NaN), written at the first touch only, so that a bank which is zero-filled right away costs no host memory
 * until it is used.
 */
#include "memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "counters.h"
#include "device.h"
#include "errors.h"
#include "faults.h"
#include "handle.h"

#define BASE 0x00AC000000000000ull      /* not canonical on x86-64, outside the user range on arm64 */
#define PER_DEVICE (1ull << 40)
#define PAGE 4096u                      /* addresses and charges */
#define GUARD 4096u                     /* unused addresses after each allocation */
#define POISON 0x7FC07FC07FC07FC0ull    /* bf16 and fp32 NaN */
#define LARGE (256u * 1024)             /* from here on, give pages back rather than fill them */

static axclError memory_error(int id, const char *text)
{
    return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, id), "%s", text);
}

static size_t round_up(size_t n) { return (n + PAGE - 1) / PAGE * PAGE; }

axclError emu_memory_open(emu_device *device, int64_t mib, int64_t idle_mib)
{
    emu_memory *m = &device->memory;
    m->total = (uint64_t)mib << 20;
    m->used = m->peak = m->idle = (uint64_t)idle_mib << 20;
    m->base = BASE + PER_DEVICE * (uint64_t)(device - emu_devices);
    m->span = 2 * m->total + (256u << 20);
    m->cursor = m->base;
    m->arena = mmap(NULL, m->span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m->arena == MAP_FAILED)
        return emu_refuse(AXCL_ERR_MEMORY_NO_MEMORY,
            "the emulator cannot reserve %llu MiB of addresses: set AXPRESS_EMU_MEMORY_MIB",
            (unsigned long long)(m->span >> 20));
    pthread_mutex_init(&m->lock, NULL);
    return 0;
}

void emu_memory_close(emu_device *device)
{
    emu_memory *m = &device->memory;
    munmap(m->arena, m->span);
    free(m->allocs);
    for (emu_alloc *a = m->spare, *next; a; a = next) next = a->next_spare, free(a);
    m->allocs = NULL, m->spare = NULL, m->count = m->capacity = 0, m->arena = NULL;
}

uint64_t emu_memory_total(emu_device *device)
{
    int64_t fault = emu_fault_memory_mib();
    return fault >= 0 ? (uint64_t)fault << 20 : device->memory.total;
}

bool emu_is_device_pointer(const void *pointer)
{
    return emu_as_number(pointer) - BASE < PER_DEVICE * EMU_MAX_DEVICES;
}

/* ---- accounting; the caller holds the lock ----------------------------------------------------------------------- */

static axclError charge(emu_device *device, uint64_t bytes, const char *what)
{
    emu_memory *m = &device->memory;
    uint64_t total = emu_memory_total(device);
    if (bytes > total || m->used + m->leaked > total - bytes) {
        if (emu_fault_memory_mib() >= 0) emu_count_effect(EMU_EFFECT_MEMORY);
        return emu_refuse(AXCL_ERR_MEMORY_NO_MEMORY,
            "%s needs %llu KiB, but of %llu MiB device memory only %llu KiB are free", what,
            (unsigned long long)(bytes >> 10), (unsigned long long)(total >> 20),
            (unsigned long long)(total > m->used + m->leaked ? (total - m->used - m->leaked) >> 10 : 0));
    }
    m->used += bytes;
    if (m->used > m->peak) m->peak = m->used;
    return 0;
}

axclError emu_memory_charge(emu_device *device, uint64_t bytes, uint64_t beside, const char *what)
{
    pthread_mutex_lock(&device->memory.lock);
    axclError error = charge(device, bytes + beside, what);
    if (!error) device->memory.used -= beside;
    pthread_mutex_unlock(&device->memory.lock);
    return error;
}

void emu_memory_refund(emu_device *device, uint64_t bytes)
{
    uint64_t leak = emu_fault_leak();
    pthread_mutex_lock(&device->memory.lock);
    device->memory.used -= bytes;
    device->memory.leaked += leak;
    pthread_mutex_unlock(&device->memory.lock);
}

/* ---- the list of allocations; the caller holds the lock ---------------------------------------------------------- */

/* Index of the first allocation that ends behind address. */
static size_t search(const emu_memory *m, uint64_t address)
{
    size_t low = 0, high = m->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (m->allocs[mid]->address + m->allocs[mid]->size > address) high = mid;
        else low = mid + 1;
    }
    return low;
}

/* Address for size bytes at or behind `from`, or 0; *index is where it goes in the list. */
static uint64_t fit(const emu_memory *m, uint64_t from, size_t size, size_t *index)
{
    uint64_t at = from;
    for (size_t i = search(m, from);; i++) {
        uint64_t end = i < m->count ? m->allocs[i]->address : m->base + m->span;
        if (at + size + GUARD <= end) {
            *index = i;
            return at;
        }
        if (i == m->count) return 0;
        uint64_t behind = m->allocs[i]->address + round_up(m->allocs[i]->size) + GUARD;
        if (behind > at) at = behind;
    }
}

static emu_alloc *insert(emu_device *device, size_t size)
{
    emu_memory *m = &device->memory;
    size_t index = 0;
    if (m->count == m->capacity) {
        size_t capacity = m->capacity ? 2 * m->capacity : 64;
        emu_alloc **grown = realloc(m->allocs, capacity * sizeof *grown);
        if (!grown) return NULL;
        m->allocs = grown, m->capacity = capacity;
    }
    uint64_t address = fit(m, m->cursor, round_up(size), &index);
    if (!address) address = fit(m, m->base, round_up(size), &index);
    emu_alloc *a = !address ? NULL : m->spare ? m->spare : calloc(1, sizeof *a);
    if (!a) return NULL;
    if (a == m->spare) m->spare = a->next_spare;
    a->address = address, a->size = size, a->charged = round_up(size), a->serial = ++m->serial;
    a->device = device, a->host = m->arena + (address - m->base);
    a->live = true;
    a->fresh = true;
    a->nonfinite = true;
    memmove(m->allocs + index + 1, m->allocs + index, (m->count - index) * sizeof *m->allocs);
    m->allocs[index] = a;
    m->count++;
    m->cursor = address + round_up(size) + GUARD;
    return a;
}

static void remove_at(emu_memory *m, size_t index)
{
    emu_alloc *a = m->allocs[index];
    a->live = false;
    madvise(a->host, a->charged, MADV_DONTNEED);
    m->used -= a->charged;
    m->freed[m->num_freed++ % 64] = a->address;
    memmove(m->allocs + index, m->allocs + index + 1, (--m->count - index) * sizeof *m->allocs);
    a->next_spare = m->spare;
    m->spare = a;
    atomic_fetch_add(&m->epoch, 1);
}

static bool was_freed(const emu_memory *m, uint64_t address)
{
    for (unsigned i = 0; i < 64 && i < m->num_freed; i++)
        if (m->freed[i] == address) return true;
    return false;
}

/* ---- allocating and freeing -------------------------------------------------------------------------------------- */

axclError emu_memory_allocate(emu_device *device, size_t size, uint64_t *address)
{
    emu_memory *m = &device->memory;
    emu_alloc *a = NULL;
    if (size > m->span) size = m->span; /* refused below all the same, and rounding up cannot overflow */
    pthread_mutex_lock(&m->lock);
    axclError error = charge(device, round_up(size), "axclrtMalloc");
    if (!error) {
        a = insert(device, size);
        if (a) *address = a->address;
        else m->used -= round_up(size);
    }
    pthread_mutex_unlock(&m->lock);
    if (!error && !a)
        error = memory_error(AXCL_ID_NO_MEMORY, "device memory is too fragmented for an allocation of this size");
    return error;
}

axclError emu_memory_free(emu_alloc *alloc, uint64_t address)
{
    emu_memory *m = &alloc->device->memory;
    axclError error = 0;
    pthread_mutex_lock(&m->lock);
    size_t i = search(m, address);
    if (i < m->count && m->allocs[i] == alloc) remove_at(m, i);
    else error = memory_error(AXCL_ID_MEMORY_NOT_DEVICE, "two threads free the same memory");
    pthread_mutex_unlock(&m->lock);
    return error;
}

void emu_memory_wipe(emu_device *device, bool report)
{
    emu_memory *m = &device->memory;
    pthread_mutex_lock(&m->lock);
    while (m->count) {
        emu_alloc *a = m->allocs[m->count - 1];
        if (report)
            emu_leak("device memory %#llx, %zu bytes, allocation %u, was not freed", (unsigned long long)a->address,
                a->size, a->serial);
        remove_at(m, m->count - 1);
    }
    m->used = m->idle;
    pthread_mutex_unlock(&m->lock);
}

/* ---- finding and touching ---------------------------------------------------------------------------------------- */

axclError emu_memory_find(const void *pointer, const char *what, emu_range *range)
{
    uint64_t address = emu_as_number(pointer), slot = (address - BASE) / PER_DEVICE;
    axclError missing = AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_MEMORY_NOT_DEVICE);
    if (!pointer) return emu_refuse(AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_NULL_POINTER), "%s is NULL", what);
    if (!emu_is_device_pointer(pointer) || slot >= (uint64_t)emu_num_devices)
        return emu_refuse(missing, "%s, %p, is not a device pointer", what, pointer);
    emu_memory *m = &emu_devices[slot].memory;
    pthread_mutex_lock(&m->lock);
    size_t i = search(m, address);
    bool found = i < m->count && m->allocs[i]->address <= address;
    if (found) {
        range->alloc = m->allocs[i];
        range->offset = address - range->alloc->address;
        range->available = range->alloc->size - range->offset;
        range->host = range->alloc->host + range->offset;
    }
    bool freed = !found && was_freed(m, address);
    pthread_mutex_unlock(&m->lock);
    if (found) return 0;
    return emu_refuse(missing, "%s, %p, is in no live allocation%s", what, pointer, freed ? ": it was freed" : "");
}

void emu_memory_touch(emu_alloc *a)
{
    if (!atomic_load_explicit(&a->fresh, memory_order_relaxed)) return;
    pthread_mutex_lock(&a->device->memory.lock);
    if (a->fresh && a->live) {
        uint64_t *words = (uint64_t *)a->host;
        for (size_t i = 0; i < (a->size + 7) / 8; i++) words[i] = POISON;
        a->nonfinite = true;
        a->fresh = false;
    }
    pthread_mutex_unlock(&a->device->memory.lock);
}

void emu_memory_written(const emu_range *range, size_t n, bool nonfinite)
{
    emu_alloc *a = range->alloc;
    if (range->offset == 0 && n >= a->size) {
        a->fresh = false;
        a->nonfinite = nonfinite;
    } else if (nonfinite) a->nonfinite = true;
    atomic_fetch_add_explicit(&a->writes, 1, memory_order_relaxed);
}
