/* The sentence behind the last error: one for the process, of whichever thread came last. */
#include "errors.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static pthread_mutex_t error_lock = PTHREAD_MUTEX_INITIALIZER;
static char last_error[EMU_SENTENCE];

axclError emu_refuse(axclError code, const char *format, ...)
{
    char text[sizeof last_error];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&error_lock);
    memcpy(last_error, text, sizeof text);
    pthread_mutex_unlock(&error_lock);
    return code;
}

const char *emu_last_error(void)
{
    static _Thread_local char copy[sizeof last_error];
    pthread_mutex_lock(&error_lock);
    memcpy(copy, last_error, sizeof copy);
    pthread_mutex_unlock(&error_lock);
    return copy;
}
