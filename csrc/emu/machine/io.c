/* IO objects: making, binding, closing. */
#include "io.h"

#include <stdlib.h>

#include "counters.h"
#include "errors.h"
#include "handle.h"
#include "plan.h"
#include "settings.h"

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;

static axclError io_error(int id, const char *text) { return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, id), "%s", text); }

void emu_io_release(emu_io *io)
{
    if (atomic_fetch_sub(&io->references, 1) > 1) return;
    for (int i = 0; i < EMU_MAX_GROUPS; i++)
        if (io->plans[i]) emu_plan_release(io->plans[i]);
    emu_loaded_release(io->loaded);
    pthread_mutex_destroy(&io->lock);
    free(io);
}

emu_io *emu_io_retain(uint64_t handle)
{
    pthread_mutex_lock(&list_lock);
    emu_io *io = emu_handle_get(EMU_IO, handle);
    if (io) atomic_fetch_add(&io->references, 1);
    pthread_mutex_unlock(&list_lock);
    if (!io) io_error(AXCL_ID_ILLEGAL_PARAM, "no IO of ours, or one already destroyed");
    return io;
}

bool emu_io_in_flight(const emu_io *io) { return emu_in_flight(io->pending, io->busy_until); }

axclError emu_io_make(emu_loaded *loaded, uint64_t *handle)
{
    emu_io *io = calloc(1, sizeof *io);
    if (!io) return io_error(AXCL_ID_NO_MEMORY, "the host is out of memory");
    io->loaded = loaded;
    io->references = 1;
    atomic_fetch_add(&loaded->references, 1);
    pthread_mutex_init(&io->lock, NULL);
    if (!(io->handle = emu_handle_new(EMU_IO, io))) { /* last: from here on others may find it */
        emu_io_release(io);
        return io_error(AXCL_ID_NO_MEMORY, "too many IO objects");
    }
    *handle = io->handle;
    return 0;
}

void emu_io_close(emu_io *io)
{
    pthread_mutex_lock(&list_lock);
    bool open = emu_handle_get(EMU_IO, io->handle) == io;
    if (open) emu_handle_close(io->handle);
    pthread_mutex_unlock(&list_lock);
    if (open) emu_io_release(io);
}

typedef struct wipe {
    emu_device *device;
    bool report;
} wipe;

static void wipe_io(uint64_t handle, void *object, void *arg)
{
    wipe *w = arg;
    emu_io *io = object;
    if (io->loaded->device != w->device) return;
    if (w->report) emu_leak("IO %#llx of %s was not destroyed", (unsigned long long)handle, io->loaded->name);
    emu_io_close(io);
}

static void wipe_info(uint64_t handle, void *object, void *arg)
{
    wipe *w = arg;
    emu_loaded *loaded = object;
    if (loaded->device != w->device) return;
    if (w->report) emu_leak("IO info %#llx of %s was not destroyed", (unsigned long long)handle, loaded->name);
    emu_handle_close(handle);
    emu_loaded_release(loaded);
}

void emu_ios_wipe(emu_device *device, bool report)
{
    wipe w = {device, report};
    emu_handle_each(EMU_IO, wipe_io, &w);
    emu_handle_each(EMU_IO_INFO, wipe_info, &w);
}

/* ---- binding ----------------------------------------------------------------------------------------------------- */

static void mark_dirty(emu_io *io, unsigned bit)
{
    for (int i = 0; i < io->loaded->info->num_groups; i++)
        if (io->plans[i]) io->plans[i]->dirty |= 1u << bit;
}

static axclError bind_locked(emu_io *io, bool output, uint32_t index, const void *pointer, uint64_t size)
{
    uint32_t count = (uint32_t)(output ? io->loaded->info->num_outputs : io->loaded->info->num_inputs);
    emu_binding next = {emu_as_number(pointer), size}, *binding;
    if (index >= count)
        return emu_refuse(AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_ENGINE_INVALID_INDEX), "%s has no %s %u",
            io->loaded->name, output ? "output" : "input", index);
    if (!pointer || !size) return io_error(AXCL_ID_NULL_POINTER, "a binding needs memory and a size above 0");
    if (emu_config.strict && emu_io_in_flight(io))
        return io_error(AXCL_ID_BUSY, "an IO is bound anew while an execute uses it: synchronise the stream first");
    binding = output ? &io->out[index] : &io->in[index];
    if (binding->address == next.address && binding->size == next.size) return 0;
    *binding = next;
    mark_dirty(io, (output ? EMU_MAX_TENSORS : 0) + index);
    return 0;
}

axclError emu_io_bind(emu_io *io, bool output, uint32_t index, const void *pointer, uint64_t size)
{
    pthread_mutex_lock(&io->lock);
    axclError error = bind_locked(io, output, index, pointer, size);
    pthread_mutex_unlock(&io->lock);
    return error;
}
