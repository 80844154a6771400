/* Events: a mark in one stream that another stream waits for. */
#ifndef AXPRESS_EMU_EVENT_H
#define AXPRESS_EMU_EVENT_H

#include "operation.h"

struct emu_event {
    uint64_t handle;
    atomic_int references;      /* the handle's and one per queued operation */
    _Atomic uint64_t submitted, done; /* records */
    _Atomic int64_t end;        /* modelled time of the last record */
};

uint64_t emu_event_make(void);                  /* the handle; 0: too many, or out of memory */
bool emu_event_close(uint64_t handle);          /* false: no open event of that handle */
emu_event *emu_event_retain(uint64_t handle);   /* NULL: no open event of that handle */
void emu_event_release(emu_event *event);
/* A queued record or wait of op->event, on the stream's thread. */
axclError emu_event_run(emu_op *op, emu_device *device, int64_t *ready, const atomic_bool *stop);
void emu_events_wipe(bool report);

#endif
