/* IO objects: which device memory a model's inputs and outputs use. */
#ifndef AXPRESS_EMU_IO_H
#define AXPRESS_EMU_IO_H

#include "loaded.h"

typedef struct emu_plan emu_plan; /* plan.h */

typedef struct emu_binding {
    uint64_t address, size; /* size 0: unbound */
} emu_binding;

typedef struct emu_io {
    uint64_t handle;
    emu_loaded *loaded;
    pthread_mutex_t lock;
    emu_binding in[EMU_MAX_TENSORS], out[EMU_MAX_TENSORS];
    emu_plan *plans[EMU_MAX_GROUPS]; /* checked bindings by group */
    atomic_uint batch;               /* axclrtEngineSetDynamicBatchSize; 0: never set */
    atomic_int references;           /* the handle's and one for each pending execute */
    atomic_int pending;
    _Atomic int64_t busy_until;
} emu_io;

axclError emu_io_make(emu_loaded *loaded, uint64_t *handle);
emu_io *emu_io_retain(uint64_t handle); /* NULL with a sentence: no open IO of that handle */
void emu_io_release(emu_io *io);
void emu_io_close(emu_io *io); /* its handle's reference goes, unless another thread closed it first */
bool emu_io_in_flight(const emu_io *io);
axclError emu_io_bind(emu_io *io, bool output, uint32_t index, const void *pointer, uint64_t size);
void emu_ios_wipe(emu_device *device, bool report); /* IO infos, too */

#endif
