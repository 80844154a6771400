/* Threads that share the work of one execute. One job at a time: a second caller that finds the pool busy works
 * alone. */
#ifndef AXPRESS_EMU_POOL_H
#define AXPRESS_EMU_POOL_H

#define EMU_MAX_THREADS 64

/* Calls fn(context, item, worker) for every item in [0, items), in any order, on up to emu_threads_get() threads;
 * returns when all are done. worker is in [0, emu_threads_get()) and no two concurrent calls of one job share it: an
 * index into per-worker scratch. */
typedef void (*emu_pool_fn)(void *context, int item, int worker);
void emu_pool_run(emu_pool_fn fn, void *context, int items);

/* The same on the calling thread alone, worker 0: for work too small to share. */
void emu_pool_run_alone(emu_pool_fn fn, void *context, int items);

#endif
