/* Operations: what streams queue and synchronous calls do at once. */
#ifndef AXPRESS_EMU_OPERATION_H
#define AXPRESS_EMU_OPERATION_H

#include "device.h"
#include "faults.h"

typedef struct emu_plan emu_plan;
typedef struct emu_event emu_event;

typedef enum emu_op_kind {
    EMU_OP_COPY,
    EMU_OP_SET,
    EMU_OP_COMPARE,
    EMU_OP_EXECUTE,
    EMU_OP_RECORD,
    EMU_OP_WAIT
} emu_op_kind;

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

#endif
