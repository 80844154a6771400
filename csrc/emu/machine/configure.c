/* Settings from text: names, values, the environment. */
#include "configure.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../arithmetic/model.h"
#include "device.h"
#include "errors.h"
#include "faults.h"
#include "pacing.h"
#include "profile.h"
#include "settings.h"

static int wrong(const char *key, const char *value, const char *expected)
{
    emu_refuse(-1, "the emulator's setting %s cannot be \"%s\": give %s", key, value, expected);
    return -1;
}

static int set_long(const char *key, const char *value, long low, long high, long *out)
{
    char *end, expected[64];
    errno = 0;
    long n = strtol(value, &end, 10);
    snprintf(expected, sizeof expected, "a whole number from %ld to %ld", low, high);
    if (errno || end == value || *end || n < low || n > high) return wrong(key, value, expected);
    *out = n;
    return 0;
}

static int set_choice(const char *key, const char *value, const char *const *choices, const char *expected, int *out)
{
    for (int i = 0; choices[i]; i++)
        if (!strcasecmp(choices[i], value)) {
            *out = i;
            return 0;
        }
    return wrong(key, value, expected);
}

static int set_mode(const char *value)
{
    static const char *const modes[] = {"tolerant", "strict", NULL};
    int choice;
    if (set_choice("MODE", value, modes, "strict or tolerant", &choice)) return -1;
    emu_config.strict = choice == 1;
    return 0;
}

static int set_speed(const char *value)
{
    char *end;
    double factor = strtod(value, &end);
    if (end == value || *end || emu_speed_set(factor)) return wrong("SPEED", value, "a number from 0.001 to 1000000");
    return 0;
}

/* Between executes, not during one: each counts its threads once, and lays out its memory for them. */
static void pause_npus(bool paused)
{
    if (paused) pthread_mutex_lock(&emu_lifecycle);
    for (int i = 0; i < emu_num_devices; i++) (paused ? pthread_mutex_lock : pthread_mutex_unlock)(&emu_devices[i].npu);
    if (!paused) pthread_mutex_unlock(&emu_lifecycle);
}

static int set_isa(const char *value)
{
    pause_npus(true);
    int unknown = emu_math_select(value);
    pause_npus(false);
    return unknown ? wrong("ISA", value, "auto, scalar, or one this CPU has: avx2, avx512, neon") : 0;
}

static int set_threads(const char *value)
{
    long n;
    if (set_long("THREADS", value, 0, 64, &n)) return -1;
    pause_npus(true);
    emu_threads_set((int)n); /* 0: as many as there are CPUs */
    pause_npus(false);
    return 0;
}

static const char *const on_off[] = {"0", "1", NULL};
static const char *const inplace[] = {"0", "1", "error", NULL};
static const char *const inplace_unaligned[] = {"0", "1", "error", "down", NULL};
static const char *const orders[] = {"0", "1", "offline", NULL};
static const char *const host_memory[] = {"plain", "pinned", NULL};
static const char *const generations[] = {"ax650", "ax8860", NULL};
static const char *const async_ways[] = {"0", "1", "sync", NULL};

static int set_either(const char *key, const char *value, const char *const *both, const char *expected,
    atomic_bool *out)
{
    int choice;
    if (set_choice(key, value, both, expected, &choice)) return -1;
    *out = choice;
    return 0;
}

static int set_switch(const char *key, const char *value, atomic_bool *out)
{
    return set_either(key, value, on_off, "0 or 1", out);
}

static int set_way(const char *key, const char *value, const char *const *ways, const char *expected, atomic_int *out)
{
    int choice;
    if (set_choice(key, value, ways, expected, &choice)) return -1;
    *out = choice;
    return 0;
}

static int set_int(const char *key, const char *value, long low, long high, atomic_int *out)
{
    long n;
    if (set_long(key, value, low, high, &n)) return -1;
    *out = (int)n;
    return 0;
}

/* Settings that axclInit reads. */
static int set_early(const char *key, const char *value)
{
    long n;
    if (emu_initialised) {
        emu_refuse(-1, "the emulator's setting %s is read by axclInit: set it before, or after axclFinalize", key);
        return -1;
    }
    if (!strcmp(key, "PROFILE")) return emu_profile_set(value);
    if (!strcmp(key, "GENERATION"))
        return set_either(key, value, generations, "ax650 or ax8860", &emu_config.ax8860);
    if (!strcmp(key, "MEMORY_MIB")) {
        if (set_long(key, value, 0, EMU_MAX_MEMORY_MIB, &n)) return -1;
        emu_config.memory_mib = n;
    } else if (!strcmp(key, "DEVICES")) {
        if (set_long(key, value, 0, EMU_MAX_DEVICES, &n)) return -1;
        emu_config.devices = (int)n;
    } else {
        if (set_long(key, value, 0, 1000, &n)) return -1;
        emu_config.first_device = (int)n;
    }
    return 0;
}

static const char *const keys[] = {"PROFILE", "MEMORY_MIB", "DEVICES", "DEVICE_ID", "GENERATION", "MODE", "SPEED",
    "LOAD_TIME", "THREADS", "ISA", "FAULTS", "COUNTERS", "INPLACE_DECODE", "INPLACE_CHUNK", "INPLACE_UNALIGNED",
    "ASYNC", "NARROW_OUTPUT", "HEAD_FIRST", "HOST_MEMORY", "TEMPERATURE", "THERMAL_RISE", "THERMAL_SECONDS",
    "REBOOT_MS", "HANG_MS", "LATE_LOAD", NULL};
#define NUM_EARLY 5 /* the first of them: read by axclInit */

static int set_late(const char *key, const char *value)
{
    if (!strcmp(key, "MODE")) return set_mode(value);
    if (!strcmp(key, "SPEED")) return set_speed(value);
    if (!strcmp(key, "THREADS")) return set_threads(value);
    if (!strcmp(key, "ISA")) return set_isa(value);
    if (!strcmp(key, "FAULTS")) return emu_faults_set(value);
    if (!strcmp(key, "COUNTERS")) return set_switch(key, value, &emu_config.counters);
    if (!strcmp(key, "INPLACE_DECODE"))
        return set_way(key, value, inplace, "0, 1 or error", &emu_config.inplace_decode);
    if (!strcmp(key, "INPLACE_CHUNK")) return set_way(key, value, inplace, "0, 1 or error", &emu_config.inplace_chunk);
    if (!strcmp(key, "ASYNC")) return set_way(key, value, async_ways, "0, 1 or sync", &emu_config.async);
    if (!strcmp(key, "NARROW_OUTPUT")) return set_switch(key, value, &emu_config.narrow_output);
    if (!strcmp(key, "INPLACE_UNALIGNED"))
        return set_way(key, value, inplace_unaligned, "0, 1, down or error", &emu_config.inplace_unaligned);
    if (!strcmp(key, "HEAD_FIRST")) return set_way(key, value, orders, "0, 1 or offline", &emu_config.head_first);
    if (!strcmp(key, "LATE_LOAD")) return set_switch(key, value, &emu_config.late_load);
    if (!strcmp(key, "HOST_MEMORY"))
        return set_either(key, value, host_memory, "plain or pinned", &emu_config.pinned);
    if (!strcmp(key, "LOAD_TIME")) return set_switch(key, value, &emu_config.load_time);
    if (!strcmp(key, "TEMPERATURE")) return set_int(key, value, -40000, 150000, &emu_config.temperature);
    if (!strcmp(key, "THERMAL_RISE")) return set_int(key, value, 0, 100000, &emu_config.thermal_rise);
    if (!strcmp(key, "THERMAL_SECONDS")) {
        if (set_int(key, value, 1, 3600, &emu_config.thermal_ms)) return -1;
        emu_config.thermal_ms *= 1000;
        return 0;
    }
    if (!strcmp(key, "REBOOT_MS")) return set_int(key, value, 0, 60000, &emu_config.reboot_ms);
    return set_int(key, value, 1, 600000, &emu_config.hang_ms);
}

static int set(const char *key, const char *value)
{
    static const char prefix[] = "AXPRESS_EMU_";
    if (!strncasecmp(key, prefix, sizeof prefix - 1)) key += sizeof prefix - 1;
    for (int i = 0; keys[i]; i++)
        if (!strcasecmp(keys[i], key)) return i < NUM_EARLY ? set_early(keys[i], value) : set_late(keys[i], value);
    emu_refuse(-1, "the emulator has no setting \"%s\": csrc/emu/README.md lists them", key);
    return -1;
}

/* ---- environment ------------------------------------------------------------------------------------------------- */

static pthread_once_t environment_once = PTHREAD_ONCE_INIT;
static int environment_result;
static char environment_error[EMU_SENTENCE];

static void read_environment(void)
{
    for (int i = 0; keys[i]; i++) {
        char name[64];
        snprintf(name, sizeof name, "AXPRESS_EMU_%s", keys[i]);
        const char *value = getenv(name);
        if (!value || !*value || !set(keys[i], value)) continue;
        environment_result = -1;
        snprintf(environment_error, sizeof environment_error, "%s", emu_last_error());
        fprintf(stderr, "axpress emulator: environment: %s\n", environment_error);
        return;
    }
}

int emu_settings_load(void)
{
    pthread_once(&environment_once, read_environment);
    if (environment_result) emu_refuse(-1, "environment: %s", environment_error);
    return environment_result;
}

int emu_settings_set(const char *key, const char *value)
{
    pthread_once(&environment_once, read_environment); /* so that what the program sets wins */
    if (!key || !value) {
        emu_refuse(-1, "axemu_set needs a key and a value, both strings");
        return -1;
    }
    int result = set(key, value);
    atomic_fetch_add(&emu_settings_version, 1);
    return result;
}
