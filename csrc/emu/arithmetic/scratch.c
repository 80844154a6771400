#include <pthread.h>
#include <stdlib.h>

#include "math.h"

#define KEPT 4     /* free blocks kept for the next execute */
#define HEADER 64  /* room for the size, keeps the alignment */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *kept[KEPT];

static size_t size_of(void *raw)
{
    return *(size_t *)raw;
}

void *emu_scratch_take(size_t bytes)
{
    void *raw = NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < KEPT && !raw; i++) {
        if (kept[i] && size_of(kept[i]) >= bytes) {
            raw = kept[i];
            kept[i] = NULL;
        }
    }
    pthread_mutex_unlock(&lock);
    if (!raw) {
        size_t rounded = (bytes + 63) / 64 * 64;
        raw = aligned_alloc(64, HEADER + rounded);
        if (!raw) return NULL;
        *(size_t *)raw = rounded;
    }
    return (char *)raw + HEADER;
}

/* Keeps the largest blocks. */
void emu_scratch_give(void *block)
{
    if (!block) return;
    void *raw = (char *)block - HEADER;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < KEPT && raw; i++) {
        if (kept[i] && size_of(kept[i]) >= size_of(raw)) continue;
        void *smaller = kept[i];
        kept[i] = raw;
        raw = smaller;
    }
    pthread_mutex_unlock(&lock);
    free(raw);
}

void emu_scratch_clear(void)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < KEPT; i++) {
        free(kept[i]);
        kept[i] = NULL;
    }
    pthread_mutex_unlock(&lock);
}
