/* Device memory: allocations, what they hold, what the card has left. */
#ifndef AXPRESS_EMU_MEMORY_H
#define AXPRESS_EMU_MEMORY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../axcl_abi.h"

#define EMU_MAX_MEMORY_MIB (1 << 18) /* per device: twice that fits a device's range of addresses */

typedef struct emu_device emu_device;
typedef struct emu_alloc emu_alloc;

typedef struct emu_memory {
    pthread_mutex_t lock;
    uint8_t *arena;           /* host backing of the device's address range */
    uint64_t base, span;      /* device addresses [base, base + span) */
    emu_alloc **allocs;       /* live, by address */
    size_t count, capacity;
    uint64_t cursor;          /* where the next allocation is tried first: freed addresses are not reused soon */
    emu_alloc *spare;         /* structs of freed allocations; kept, since a late user may still look at one */
    uint64_t freed[64];       /* last freed addresses, to name a double free */
    unsigned num_freed;
    uint64_t total, idle, used, peak, leaked; /* bytes of CMM */
    uint32_t serial;
    _Atomic uint64_t epoch;   /* changes with every free: checked bindings are checked again */
} emu_memory;

struct emu_alloc {
    uint64_t address;
    size_t size, charged;
    uint32_t serial;
    emu_device *device;
    uint8_t *host;
    atomic_bool live;
    atomic_bool fresh;        /* poison is due at the first touch that does not overwrite everything */
    atomic_bool nonfinite;    /* some 16-bit words may be a bf16 NaN or infinity */
    _Atomic uint64_t writes;  /* changes with every write */
    emu_alloc *next_spare;
};

typedef struct emu_range {
    emu_alloc *alloc;
    uint8_t *host;
    size_t offset, available; /* bytes from host to the allocation's end */
} emu_range;

axclError emu_memory_open(emu_device *device, int64_t mib, int64_t idle_mib);
void emu_memory_close(emu_device *device);
void emu_memory_wipe(emu_device *device, bool report);
/* size: above 0. 0 and the allocation's address, or an error with a sentence. */
axclError emu_memory_allocate(emu_device *device, size_t size, uint64_t *address);
axclError emu_memory_free(emu_alloc *alloc, uint64_t address);
bool emu_is_device_pointer(const void *pointer);
/* Finds the allocation that holds pointer. 0, or AXCL_ID_MEMORY_NOT_DEVICE with a sentence naming what. */
axclError emu_memory_find(const void *pointer, const char *what, emu_range *range);
/* Before reading, or writing only a part: fills a fresh allocation with poison. */
void emu_memory_touch(emu_alloc *alloc);
/* After writing [host, host + n) whose words may be non-finite as told; covers everything of the allocation or a
 * part. */
void emu_memory_written(const emu_range *range, size_t n, bool nonfinite);
/* Takes `bytes`, if there is room for `beside` more at the same time, as while a model is read. */
axclError emu_memory_charge(emu_device *device, uint64_t bytes, uint64_t beside, const char *what);
void emu_memory_refund(emu_device *device, uint64_t bytes);
uint64_t emu_memory_total(emu_device *device);

#endif
