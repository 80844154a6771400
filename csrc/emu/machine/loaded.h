/* The engine: whether it is initialised, and the models loaded on devices. */
#ifndef AXPRESS_EMU_LOADED_H
#define AXPRESS_EMU_LOADED_H

#include "../arithmetic/model.h"
#include "device.h"

#define EMU_SYSTEM_BYTES 65536 /* of the card's system memory, per model: nominal */

extern atomic_bool emu_engine_ready; /* between axclrtEngineInit and axclrtEngineFinalize */
extern atomic_int emu_engine_kind;   /* axclrtEngineVNpuKind; kept, without effect */

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

emu_loaded *emu_loaded_get(uint64_t id); /* borrowed; NULL with a sentence */
void emu_loaded_release(emu_loaded *loaded);
bool emu_in_flight(int pending, int64_t busy_until); /* accepted and not ended, on the modelled clock, too */

/* Loads a model, which takes its modelled time; takes the model over, also on failure. path names it in messages;
 * image: bytes of device memory that hold its file meanwhile. */
axclError emu_load(emu_device *device, emu_model *model, const char *path, uint64_t image, uint64_t *id);
/* Loads a model and unloads it again: how the runtime finds out what it needs. */
axclError emu_load_once(emu_device *device, emu_model *model, const char *path, uint64_t image);

/* The caller of these two holds emu_lifecycle. */
void emu_loaded_uninstall(emu_loaded *loaded);
void emu_models_wipe(emu_device *device, bool report);

#endif
