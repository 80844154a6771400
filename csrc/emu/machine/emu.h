/* The emulated runtime's inside: what its source files share. README.md here describes what it does for whom.
 *
 * Locks, in the order in which they may be taken: emu_lifecycle, an io's lock, a stream's submit lock, a device's npu, a
 * device's memory, a device's clock, and the small ones (faults, handles, last error) that call nothing.
 */
#ifndef AXPRESS_EMU_EMU_H
#define AXPRESS_EMU_EMU_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* so this header comes first in every file */
#endif

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "functions.h"
#include "../arithmetic/model.h"

#define EMU_MAX_DEVICES 8
#define EMU_MAX_MEMORY_MIB (1 << 18) /* per device: twice that fits a device's range of addresses */
#define EMU_VERSION "axpress emulated AXCL runtime 0.1"

/* ---- settings (control.c) ------------------------------------------------------------------------------------------ */

enum { EMU_ASYNC_REFUSED = 0, EMU_ASYNC_YES = 1, EMU_ASYNC_SYNC = 2 };
enum { EMU_INPLACE_LOST = 0, EMU_INPLACE_WORKS = 1, EMU_INPLACE_ERROR = 2 };

typedef struct emu_settings {
    atomic_bool strict;
    atomic_int inplace_decode, inplace_chunk; /* EMU_INPLACE_* */
    atomic_int async;                         /* EMU_ASYNC_* */
    atomic_bool narrow_output;                /* chunk groups narrower than 64 write `output` */
    atomic_bool head_first;                   /* strict: a head loaded after a layer is refused */
    atomic_int temperature;                   /* millidegrees Celsius */
    atomic_int reboot_ms;                     /* how long a rebooted device is missing from the list */
    atomic_int hang_ms;                       /* bound of a hang that nothing releases */
    atomic_bool counters;                     /* print the report when the process ends */
    int devices, first_device;                /* these three: read by axclInit */
    int64_t memory_mib;                       /* 0: the profile's */
} emu_settings;

extern emu_settings emu_config;
extern atomic_uint emu_settings_version; /* changes with every axemu_set */

/* Reads the environment, once. 0, or -1 after a wrong value (the sentence is in axemu_last_error). */
int emu_settings_load(void);

/* ---- errors (control.c) -------------------------------------------------------------------------------------------- */

/* Keeps the sentence for axemu_last_error and returns code. */
axclError emu_refuse(axclError code, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *emu_fn_name(emu_fn fn);
int emu_fn_find(const char *name); /* -1: no such function */

/* ---- handles (handle.c): numbers that are no addresses, checked at every use ----------------------------------------- */

typedef enum emu_kind {
    EMU_CONTEXT = 1,
    EMU_STREAM,
    EMU_EVENT,
    EMU_IO_INFO,
    EMU_IO,
    EMU_MODEL,
    EMU_ENGINE_CONTEXT
} emu_kind;

uint64_t emu_handle_new(emu_kind kind, void *object); /* 0: too many */
void *emu_handle_get(emu_kind kind, uint64_t handle); /* NULL: unknown or closed */
bool emu_handle_close(uint64_t handle); /* false: it was closed already, perhaps by another thread just now */
/* Calls visit(object, arg) for every open handle of a kind. */
void emu_handle_each(emu_kind kind, void (*visit)(uint64_t handle, void *object, void *arg), void *arg);

static inline void *emu_as_pointer(uint64_t handle) { return (void *)(uintptr_t)handle; }
static inline uint64_t emu_as_number(const void *pointer) { return (uint64_t)(uintptr_t)pointer; }

/* ---- devices (device.c) and contexts (context.c) --------------------------------------------------------------------- */

typedef enum emu_state { EMU_ONLINE = 0, EMU_OFFLINE, EMU_DEAD } emu_state;
enum { EMU_RESOURCE_NPU, EMU_RESOURCE_UP, EMU_RESOURCE_DOWN, EMU_RESOURCE_DMA, EMU_NUM_RESOURCES };

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

typedef struct emu_device {
    int id;
    _Atomic int state;             /* emu_state */
    _Atomic uint32_t generation;   /* changes with reset and reboot: what waits on the device gives up */
    int set_count;                 /* axclrtSetDevice less axclrtResetDevice */
    uint64_t default_context;
    int64_t back_at;               /* ns; until then a rebooted device is missing */
    emu_memory memory;
    pthread_mutex_t npu;           /* one execute at a time */
    atomic_bool executed;          /* since the first model was loaded */
    atomic_int models, layers;
    atomic_int heat;               /* millidegrees added by the temperature fault */
    pthread_mutex_t clock;         /* the timeline, see pacing.c */
    int64_t free_at[EMU_NUM_RESOURCES];
    int64_t busy_until;
} emu_device;

typedef struct emu_context {
    uint64_t handle;
    emu_device *device;
    bool explicit_one; /* made by axclrtCreateContext */
    struct emu_context *next_closed;
} emu_context;

extern pthread_mutex_t emu_lifecycle; /* init, finalize, set, reset, engine init, load, unload */
extern atomic_bool emu_initialised;
extern emu_device emu_devices[EMU_MAX_DEVICES];
extern int emu_num_devices;

typedef enum emu_need { EMU_NEEDS_NOTHING, EMU_NEEDS_INIT, EMU_NEEDS_CONTEXT } emu_need;

/* Every exported function begins with this: counts the call, applies faults, checks initialisation and the thread's
 * context. With EMU_NEEDS_CONTEXT, *device is the context's device, online. */
axclError emu_enter(emu_fn fn, emu_need need, emu_device **device);
axclError emu_offline_error(const emu_device *device);
emu_context *emu_context_current(void); /* NULL: none bound, or closed */
emu_device *emu_device_by_id(int32_t id);
axclError emu_context_make(emu_device *device, bool explicit_one, uint64_t *handle);
void emu_context_bind(uint64_t handle);
/* Stops and forgets everything of a device, naming what was left open; the caller holds emu_lifecycle. */
void emu_device_wipe(emu_device *device, bool report);
void emu_engine_reset(void); /* engine.c: forget axclrtEngineInit */
void emu_contexts_wipe(emu_device *device, bool report);

/* ---- memory (memory.c) --------------------------------------------------------------------------------------------- */

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
bool emu_is_device_pointer(const void *pointer);
/* Finds the allocation that holds pointer. 0, or AXCL_ID_MEMORY_NOT_DEVICE with a sentence naming what. */
axclError emu_memory_find(const void *pointer, const char *what, emu_range *range);
/* Before reading, or writing only a part: fills a fresh allocation with poison. */
void emu_memory_touch(emu_alloc *alloc);
/* After writing [host, host + n) whose words may be non-finite as told; covers everything of the allocation or a part. */
void emu_memory_written(const emu_range *range, size_t n, bool nonfinite);
bool emu_has_nonfinite(const void *data, size_t n);
axclError emu_memory_charge(emu_device *device, uint64_t bytes, const char *what);
void emu_memory_refund(emu_device *device, uint64_t bytes);
uint64_t emu_memory_total(emu_device *device);

/* pinned.c */
bool emu_pinned_find(const void *pointer, size_t *available);
void emu_pinned_wipe(bool report);
uint64_t emu_pinned_used(void);

/* ---- faults (faults.c) --------------------------------------------------------------------------------------------- */

typedef enum emu_fault_kind { EMU_FAULT_NONE = 0, EMU_FAULT_FAIL_LATER, EMU_FAULT_HANG, EMU_FAULT_BLOCK } emu_fault_kind;

typedef struct emu_fault {
    emu_fault_kind kind;
    axclError code;
    int ms; /* bound of a hang */
} emu_fault;

int emu_faults_set(const char *text);           /* 0, or -1 with a sentence */
axclError emu_fault_call(emu_fn fn);            /* the fault of this call: its code, or 0 */
emu_fault emu_fault_armed(void);                /* what the call in progress must do later; clears it */
void emu_fault_offline(emu_fn fn);              /* counts work submitted to a device that is known to be offline */
void emu_fault_submission(emu_device *device);  /* counts one; may take the device offline */
bool emu_fault_nan(emu_model_kind kind);        /* counts one execute; true: its results are NaN */
void emu_fault_heat(emu_device *device);        /* counts one execute */
int emu_fault_temperature(const emu_device *device);
int64_t emu_fault_memory_mib(void);             /* -1: as it is */
uint64_t emu_fault_leak(void);                  /* bytes that an unload leaves behind */
/* Blocks until the device's generation changes, *stop is set, the bound is over or the deadline (ns, 0 = none) passes.
 * false: the deadline passed. */
bool emu_hang(emu_device *device, int ms, const atomic_bool *stop, int64_t deadline);
void emu_release(void); /* wakes whatever hangs or waits, to look again */

/* ---- time (pacing.c, profile.c) ------------------------------------------------------------------------------------- */

int64_t emu_now(void); /* ns, monotonic */
extern atomic_bool emu_paced;
int emu_profile_set(const char *name);   /* 0, or -1 with a sentence */
const char *emu_profile_name(void);
int64_t emu_profile_cmm_mib(void);
int64_t emu_profile_idle_mib(void);
int emu_speed_set(double factor);

double emu_cost_execute(const emu_model *model, int group);          /* all costs: modelled ns */
double emu_cost_copy(axclrtMemcpyKind kind, size_t n, bool pinned);
double emu_cost_submit(void);
double emu_cost_sync(void);

/* When the call in progress reaches the device: the thread's own time, moved on by the cost of one submission. */
int64_t emu_time_submit(void);
/* Occupies a resource for cost (modelled ns), not before ready; returns the end. */
int64_t emu_time_run(emu_device *device, int resource, int64_t ready, double cost);
/* Waits for end plus the latency of one synchronous call, or until the deadline (0 = none). false: the deadline came first. */
bool emu_time_wait(emu_device *device, int64_t end, int64_t deadline, const atomic_bool *stop);

/* ---- operations (copy.c, execute.c): what streams queue and synchronous calls do at once ------------------------------ */

typedef struct emu_plan emu_plan;
typedef struct emu_event emu_event;

typedef enum emu_op_kind { EMU_OP_COPY, EMU_OP_SET, EMU_OP_COMPARE, EMU_OP_EXECUTE, EMU_OP_RECORD, EMU_OP_WAIT } emu_op_kind;

typedef struct emu_op {
    emu_op_kind kind;
    axclrtMemcpyKind copy_kind;
    bool pinned;
    uint8_t value;
    emu_fault fault;
    int64_t submitted;          /* modelled time at which the device knows of it */
    emu_range dst, src;         /* device side; a host side has only .host */
    size_t count;
    emu_plan *plan;             /* EXECUTE: one reference */
    emu_event *event;           /* RECORD, WAIT: one reference */
    uint64_t ticket;
    int timeout_ms;
} emu_op;

/* Does the work; *ready is the end of the previous one and becomes the end of this one. */
axclError emu_op_run(emu_op *op, emu_device *device, int64_t *ready, const atomic_bool *stop);
void emu_op_drop(emu_op *op); /* returns its references */
/* Runs op on the calling thread, as a synchronous call. */
axclError emu_op_now(emu_op *op, emu_device *device);
axclError emu_execute_run(emu_plan *plan, emu_device *device, int64_t submitted, int64_t *ready);
axclError emu_event_run(emu_op *op, emu_device *device, int64_t *ready, const atomic_bool *stop);
void emu_event_release(emu_event *event);

/* ---- streams (stream.c) ---------------------------------------------------------------------------------------------- */

typedef struct emu_stream emu_stream;

/* Takes op over, accepted or not. */
axclError emu_stream_submit(axclrtStream stream, emu_device *device, emu_op *op);
/* Is [host, host + n) used by work that has not ended, on any stream of the device (NULL: all)? */
bool emu_stream_uses(const uint8_t *host, size_t n);
emu_device *emu_stream_device(const emu_stream *stream);
axclError emu_streams_drain(emu_device *device); /* waits until all are idle */
void emu_streams_wipe(emu_device *device, bool report);
void emu_events_wipe(bool report);

/* ---- engine (engine.c, engine_info.c, engine_io.c, plan.c) ------------------------------------------------------------- */

typedef struct emu_loaded { /* a model on a device */
    uint64_t id;
    emu_device *device;
    emu_model *model;
    const emu_model_info *info;
    atomic_int references;
    atomic_bool open;        /* false once unloaded */
    atomic_int pending;      /* executes accepted and not ended */
    _Atomic int64_t busy_until;
    uint32_t affinity;
    char name[64];           /* file name, for messages */
} emu_loaded;

typedef struct emu_binding {
    uint64_t address, size; /* size 0: unbound */
} emu_binding;

typedef struct emu_io {
    uint64_t handle;
    emu_loaded *loaded;
    pthread_mutex_t lock;
    emu_binding in[EMU_MAX_TENSORS], out[EMU_MAX_TENSORS];
    emu_plan *plans[EMU_MAX_GROUPS]; /* checked bindings by group */
    atomic_int references;           /* the handle's and one for each pending execute */
    atomic_int pending;
    _Atomic int64_t busy_until;
} emu_io;

struct emu_plan { /* the bindings of one IO for one group, checked and resolved */
    atomic_int references;   /* the IO's and one per pending execute */
    emu_loaded *loaded;      /* one reference */
    emu_io *io;              /* kept by each pending execute */
    int group;
    uint64_t epoch;          /* of the device's memory when it was checked */
    unsigned settings;       /* emu_settings_version when it was checked */
    unsigned dirty;          /* bindings to check: bit i input i, bit EMU_MAX_TENSORS + i output i */
    int num_in, num_out;
    emu_range in[EMU_MAX_TENSORS], out[EMU_MAX_TENSORS]; /* host NULL: unbound */
    uint64_t in_bytes[EMU_MAX_TENSORS], out_bytes[EMU_MAX_TENSORS]; /* what the group reads and writes */
    uint8_t *in_scratch[EMU_MAX_TENSORS], *out_scratch[EMU_MAX_TENSORS]; /* stand-ins, NULL where memory is used directly */
    size_t out_kept[EMU_MAX_TENSORS]; /* bytes of an output's stand-in that reach its memory; the rest is lost */
    uint64_t last_writes;    /* of the output's allocation after the last execute of a head */
};

emu_loaded *emu_loaded_get(uint64_t id); /* borrowed */
void emu_loaded_release(emu_loaded *loaded);
bool emu_in_flight(int pending, int64_t busy_until); /* accepted and not ended, on the modelled clock, too */
void emu_io_release(emu_io *io);
/* The checked bindings of io for a group, retained; the caller holds io's lock. */
axclError emu_plan_get(emu_io *io, emu_loaded *loaded, int group, emu_plan **plan);
void emu_plan_release(emu_plan *plan);
void emu_plan_begun(emu_plan *plan); /* an execute was accepted ... */
void emu_plan_ended(emu_plan *plan); /* ... and has ended */
void emu_ios_wipe(emu_device *device, bool report);
void emu_engine_wipe(emu_device *device, bool report);

/* ---- counters (counters.c) --------------------------------------------------------------------------------------------- */

typedef enum emu_count {
    EMU_COUNT_SUBMISSIONS, EMU_COUNT_WAITS, EMU_COUNT_BINDS, EMU_COUNT_DECODE, EMU_COUNT_CHUNK, EMU_COUNT_HEAD,
    EMU_COUNT_OFFLINE, EMU_COUNT_MODELLED_NS, EMU_NUM_COUNTS
} emu_count;

void emu_count_call(emu_fn fn);
void emu_count_add(emu_count what, uint64_t n);
void emu_count_copy(axclrtMemcpyKind kind, size_t n);
void emu_leak(const char *format, ...) __attribute__((format(printf, 1, 2)));
void emu_leaks_print(void);
void emu_leaks_clear(void);

#endif
