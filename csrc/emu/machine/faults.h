/* Faults on request: what the list of faults (setting FAULTS) does to calls, to queued work and to devices. */
#ifndef AXPRESS_EMU_FAULTS_H
#define AXPRESS_EMU_FAULTS_H

#include "../arithmetic/model.h"
#include "device.h"
#include "functions.h"

typedef enum emu_fault_kind {
    EMU_FAULT_NONE = 0,
    EMU_FAULT_FAIL_LATER,
    EMU_FAULT_HANG,
    EMU_FAULT_BLOCK
} emu_fault_kind;

typedef struct emu_fault {
    emu_fault_kind kind;
    axclError code;
    int ms; /* bound of a hang */
} emu_fault;

int emu_faults_set(const char *text);           /* 0, or -1 with a sentence */
bool emu_faults_are_new(void);                  /* nothing came of those before: devices open as whole ones */
void emu_faults_begun(void);                    /* devices are open */
void emu_faults_devices(void);                  /* takes down the devices that are to be so at once */
axclError emu_fault_call(emu_fn fn);            /* the fault of this call: its code, or 0 */
emu_fault emu_fault_armed(void);                /* what the call in progress must do later; clears it */
void emu_fault_offline(emu_fn fn);              /* counts work submitted to a device that is known to be offline */
void emu_fault_submission(emu_device *device);  /* counts one; may take the device offline */
/* Counts one execute; true: its results are NaN. */
bool emu_fault_nan(const emu_device *device, emu_model_kind kind);
void emu_fault_heat(emu_device *device);        /* counts one execute */
int emu_fault_temperature(const emu_device *device);
int64_t emu_fault_memory_mib(void);             /* -1: as it is */
uint64_t emu_fault_leak(void);                  /* bytes that an unload leaves behind */
bool emu_fault_no_driver(void);                 /* the kernel module is not there */
/* Blocks until the device's generation changes, *stop is set, the bound is over or the deadline (ns, 0 = none) passes.
 * false: the deadline passed. */
bool emu_hang(emu_device *device, int ms, const atomic_bool *stop, int64_t deadline);
void emu_release(void); /* wakes whatever hangs or waits, to look again */

#endif
