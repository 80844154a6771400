/* Plans: the bindings of an IO for one shape group, checked and resolved. */
#ifndef AXPRESS_EMU_PLAN_H
#define AXPRESS_EMU_PLAN_H

#include "io.h"

struct emu_plan {
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
    /* stand-ins, NULL where memory is used directly */
    uint8_t *in_scratch[EMU_MAX_TENSORS], *out_scratch[EMU_MAX_TENSORS];
    size_t out_kept[EMU_MAX_TENSORS]; /* bytes of an output's stand-in that reach its memory; the rest is lost */
    uint64_t last_writes;    /* of the output's allocation after the last execute of a head */
};

/* The checked bindings of io for a group, retained; the caller holds io's lock. */
axclError emu_plan_get(emu_io *io, emu_loaded *loaded, int group, emu_plan **plan);
void emu_plan_release(emu_plan *plan);

#endif
