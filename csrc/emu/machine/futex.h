/* Waiting for a word to change, with a bounded spin before: hand-off between a stream's submitter, worker and
 * waiters. */
#ifndef AXPRESS_EMU_FUTEX_H
#define AXPRESS_EMU_FUTEX_H

#include "pacing.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define EMU_SPIN_NS 20000 /* other programs want the cores, too */

static inline void emu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleeps while *word == value; deadline in monotonic ns, 0 = none. May return early. */
static inline void emu_futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline)
{
    struct timespec t = {deadline / 1000000000, deadline % 1000000000};
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value, deadline ? &t : NULL, NULL, FUTEX_BITSET_MATCH_ANY);
}

static inline void emu_futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
}

/* Spins while *word == value, at most *budget ns, which adapts: it halves when spinning was in vain, doubles when it
 * was not. */
static inline bool emu_spin_while(_Atomic uint32_t *word, uint32_t value, _Atomic int32_t *budget)
{
    int32_t ns = atomic_load_explicit(budget, memory_order_relaxed);
    if (ns <= 0) return false;
    int64_t end = emu_now() + ns;
    do {
        for (int i = 0; i < 32; i++, emu_relax())
            if (atomic_load_explicit(word, memory_order_acquire) != value) {
                atomic_store_explicit(budget, 2 * ns < EMU_SPIN_NS ? 2 * ns : EMU_SPIN_NS, memory_order_relaxed);
                return true;
            }
    } while (emu_now() < end);
    atomic_store_explicit(budget, ns > 2000 ? ns / 2 : 1000, memory_order_relaxed);
    return false;
}

#endif
