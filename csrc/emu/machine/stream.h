/* Streams: operations in order, on a thread each. */
#ifndef AXPRESS_EMU_STREAM_H
#define AXPRESS_EMU_STREAM_H

#include "operation.h"

typedef struct emu_stream emu_stream;

axclError emu_stream_make(emu_device *device, uint64_t *handle);
/* For a call in progress; NULL with a sentence: no open stream of that handle. */
emu_stream *emu_stream_retain(axclrtStream handle);
void emu_stream_release(emu_stream *s);
/* Takes it off the list and ends its thread; what is queued ends before, or is dropped by force. */
void emu_stream_end(emu_stream *s, bool force);
emu_device *emu_stream_device(const emu_stream *s);

/* Takes op over, accepted or not. */
axclError emu_stream_submit(axclrtStream stream, emu_device *device, emu_op *op);
/* Waits for what was submitted; the first error since the last time, or a time-out at the deadline (ns, 0 = none). A
 * fault of the call lets it hang or fail instead. */
axclError emu_stream_synchronise(emu_stream *s, emu_fault fault, int64_t deadline);
/* Is [host, host + n) used by work that has not ended, on any stream? */
bool emu_stream_uses(const uint8_t *host, size_t n);
/* Waits until all streams of a device are idle; `take`: as a synchronise of each, their first error is returned. */
axclError emu_streams_wait(emu_device *device, bool take);
void emu_streams_wipe(emu_device *device, bool report);

#endif
