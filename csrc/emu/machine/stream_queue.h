/* A stream's queue: a ring of operations in order, the thread that runs them, and waiting for them to end. */
#ifndef AXPRESS_EMU_STREAM_QUEUE_H
#define AXPRESS_EMU_STREAM_QUEUE_H

#include "operation.h"

#define EMU_RING 512u

typedef struct emu_stream emu_stream;

struct emu_stream {
    uint64_t handle;
    emu_device *device;
    emu_stream *next;                 /* of all streams: stream.c */
    atomic_int references;            /* the list's and one per call in progress: stream.c */
    pthread_t thread;
    pthread_mutex_t submit, retire;
    _Atomic uint32_t tail, head;      /* operations accepted, ended */
    _Atomic uint32_t asleep;          /* is the thread? who sets it back wakes it */
    int waiters;                      /* threads that wait for head; under the retire lock, as is */
    uint32_t wanted;                  /* no waiter has to be woken before head is here */
    atomic_bool turn;                 /* somebody runs what is queued; ready is theirs */
    atomic_bool helped;               /* the last work was done by a thread that waited for it */
    int64_t ready;                    /* modelled end of the last operation */
    _Atomic int32_t worker_spin, waiter_spin;
    atomic_bool stop;                 /* drop what is queued and end */
    _Atomic axclError error;          /* first one since the last synchronise */
    _Atomic int64_t end;              /* ready, for those who wait */
    emu_op ring[EMU_RING];
};

/* Readies a zeroed stream whose device is set, and starts its thread. false: the host has none left. */
bool emu_queue_open(emu_stream *s);
/* Ends the thread; what is queued is dropped. Once, by whoever took the stream off the list. */
void emu_queue_close(emu_stream *s);
/* Takes op over if accepted (0). */
axclError emu_queue_push(emu_stream *s, const emu_device *device, const emu_op *op);
/* May the thread of a call for this device use the stream? */
axclError emu_queue_check(const emu_stream *s, const emu_device *device);
/* Waits for what was queued so far: on the modelled clock, too, and for its error. The deadline: ns, 0 = none. */
axclError emu_queue_synchronise(emu_stream *s, int64_t deadline);
/* Waits for what was queued so far, here and now; leaves its error. */
void emu_queue_drain(emu_stream *s);
/* Is any part of [host, host + n) used by an operation that has not ended? */
bool emu_queue_uses(emu_stream *s, const uint8_t *host, size_t n);

#endif
