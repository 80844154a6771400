/* The modelled timeline: when what is submitted begins and ends on the card, and waiting for it. */
#ifndef AXPRESS_EMU_PACING_H
#define AXPRESS_EMU_PACING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "device.h"

int64_t emu_now(void); /* ns, monotonic */
int emu_speed_set(double factor); /* 0, or -1 out of range */

/* When the call in progress reaches the device: the thread's own time, moved on by the cost of one submission. */
int64_t emu_time_submit(void);
/* Occupies a resource for cost (modelled ns), not before ready; returns the end. */
int64_t emu_time_run(emu_device *device, int resource, int64_t ready, double cost);
/* Occupies a resource from now on and waits until that is over; no time where the cost is 0. */
void emu_time_take(emu_device *device, int resource, double cost);
/* Waits for end plus the latency of one synchronous call, or until the deadline (0 = none). false: the deadline came
 * first. */
bool emu_time_wait(emu_device *device, int64_t end, int64_t deadline, const atomic_bool *stop);
/* Millidegrees that work has warmed the device by (THERMAL_RISE). */
int emu_time_rise(emu_device *device);

#endif
