/* Faults on request. The grammar is in README.md; rules are separated by ';':
 *
 *   NAME@N=fail:CODE  NAME@N=later:CODE  NAME@N=hang[:MS]  NAME@N=block[:MS]  N-th call of a function; N+: N-th and on
 *   device=offline[@N]  device=dead[@N]                                       at the N-th submission, or at once
 *   nan@layer:N  nan@head:N  nan@vision:N  nan@any:N                  results of the N-th execute are NaN
 *   temperature=MC[+MC_PER_EXECUTE]  memory=MIB  leak=BYTES  driver=missing
 */
#define _GNU_SOURCE /* pthread_cond_clockwait */
#include "faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "counters.h"
#include "errors.h"
#include "pacing.h"
#include "settings.h"

typedef enum rule_kind { RULE_CALL, RULE_DEVICE, RULE_NAN } rule_kind;

typedef struct rule {
    rule_kind kind;
    int device;              /* the id of the only one that it is for; ANY */
    emu_fn fn;               /* CALL */
    uint64_t at, seen;
    bool onward;
    bool fail_now;           /* CALL: the call itself returns fault.code */
    emu_fault fault;
    emu_state state;         /* DEVICE */
    int model;               /* NAN: EMU_LAYER, EMU_HEAD or -1 */
} rule;

#define ANY -1
#define MAX_RULES 32

typedef struct rule_set {
    rule rules[MAX_RULES];
    int count;
    int temperature, heat;   /* temperature 0: as set */
    int warm;                /* the device that has it, or ANY */
    int64_t memory_mib;
    uint64_t leak;
    bool no_driver;
} rule_set;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static rule_set active;
static atomic_bool any_rule;
static atomic_int temperature, heat, warm = ANY;
static _Atomic int64_t memory_mib = -1;
static _Atomic uint64_t leak;
static atomic_bool no_driver;
static _Thread_local emu_fault armed;
static atomic_bool are_new = true;

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

static int bad(const char *text, const char *why)
{
    emu_refuse(-1, "fault \"%s\": %s", text, why);
    return -1;
}

static bool parse_count(const char *s, uint64_t *n, const char **end)
{
    char *stop;
    if (*s < '0' || *s > '9') return false;
    *n = strtoull(s, &stop, 0);
    *end = stop;
    return true;
}

/* "fail:0x8030070c", "later:CODE", "hang", "hang:500", "block" */
static int parse_action(const char *text, const char *s, rule *r)
{
    uint64_t value = 0;
    size_t word = strcspn(s, ":");
    const char *end = s + word;
    bool given = *end == ':' && parse_count(end + 1, &value, &end);
    if (*end) return bad(text, "after the action comes :NUMBER or nothing");
    bool fails = !strncmp(s, "fail", word) && word == 4, later = !strncmp(s, "later", word) && word == 5;
    if (fails || later) {
        if (!given || !value) return bad(text, "fail and later need an error value, as in fail:0x8030070c");
        r->fault = (emu_fault){EMU_FAULT_FAIL_LATER, (axclError)(uint32_t)value, 0};
        r->fail_now = fails;
        return 0;
    }
    bool hang = !strncmp(s, "hang", word) && word == 4, block = !strncmp(s, "block", word) && word == 5;
    if (!hang && !block) return bad(text, "the action must be fail:CODE, later:CODE, hang[:MS] or block[:MS]");
    r->fault = (emu_fault){hang ? EMU_FAULT_HANG : EMU_FAULT_BLOCK, 0, given ? (int)value : 0};
    return 0;
}

static int parse_call(const char *text, char *at, const char *action, rule *r)
{
    const char *end;
    *at = 0;
    int fn = emu_fn_find(text);
    *at = '@';
    if (fn < 0) return bad(text, "the runtime has no function of that name");
    r->kind = RULE_CALL;
    r->fn = (emu_fn)fn;
    if (!parse_count(at + 1, &r->at, &end) || !r->at) return bad(text, "after @ comes the number of the call, from 1");
    r->onward = *end == '+';
    if (end + r->onward != action - 1) return bad(text, "between the number of the call and = only + may stand");
    return parse_action(text, action, r);
}

static int parse_device(const char *text, const char *s, rule *r)
{
    size_t word = strcspn(s, "@");
    const char *end = s + word;
    r->kind = RULE_DEVICE;
    if (word == 7 && !strncmp(s, "offline", 7)) r->state = EMU_OFFLINE;
    else if (word == 4 && !strncmp(s, "dead", 4)) r->state = EMU_DEAD;
    else return bad(text, "a device can be offline or dead");
    if (*end == '@' && !parse_count(end + 1, &r->at, &end))
        return bad(text, "after @ comes the number of the submission");
    return *end ? bad(text, "nothing may follow") : 0;
}

static int parse_nan(const char *text, const char *s, rule *r)
{
    const char *end = s;
    size_t word = strcspn(s, ":");
    r->kind = RULE_NAN;
    if (word == 5 && !strncmp(s, "layer", 5)) r->model = EMU_LAYER;
    else if (word == 4 && !strncmp(s, "head", 4)) r->model = EMU_HEAD;
    else if (word == 6 && !strncmp(s, "vision", 6)) r->model = EMU_VISION;
    else if (word == 3 && !strncmp(s, "any", 3)) r->model = -1;
    else return bad(text, "NaN results come from nan@layer:N, nan@head:N, nan@vision:N or nan@any:N");
    if (s[word] != ':' || !parse_count(s + word + 1, &r->at, &end) || !r->at)
        return bad(text, "the number of the execute is missing");
    r->onward = *end == '+';
    return end[r->onward] ? bad(text, "nothing may follow") : 0;
}

static int parse_value(const char *text, const char *key, const char *s, rule_set *set)
{
    char *end;
    long long value = strtoll(s, &end, 10);
    if (end == s) return bad(text, "a number must follow =");
    if (!strcmp(key, "temperature")) {
        set->temperature = (int)value;
        if (*end == '+') set->heat = (int)strtol(end + 1, &end, 10);
    } else if (!strcmp(key, "memory")) set->memory_mib = value;
    else if (!strcmp(key, "leak")) set->leak = (uint64_t)value;
    else return bad(text, "known are FUNCTION@N=..., device=, nan@..., temperature=, memory=, leak=, driver=missing");
    return *end || value < 0 ? bad(text, "the number is not a whole one from 0") : 0;
}

/* "2:" before a rule: it is for the device of that id, and counts what happens there. */
static char *parse_which(char *text, int *device)
{
    const char *end;
    uint64_t id;
    *device = ANY;
    if (!parse_count(text, &id, &end) || *end != ':') return text;
    *device = (int)id;
    return text + (end - text) + 1;
}

static int parse_rule(char *text, rule_set *set)
{
    rule r = {.at = 0};
    text = parse_which(text, &r.device);
    char *at = strchr(text, '@'), *equals = strchr(text, '=');
    if (set->count == MAX_RULES) return bad(text, "more than 32 rules");
    if (!strcmp(text, "driver=missing") && r.device == ANY) {
        set->no_driver = true;
        return 0;
    }
    int result;
    if (!strncmp(text, "nan@", 4)) result = parse_nan(text, text + 4, &r);
    else if (!equals) return bad(text, "a rule has the form NAME@N=ACTION or NAME=VALUE");
    else if (!strncmp(text, "device=", 7)) result = parse_device(text, text + 7, &r);
    else if (at && at < equals) result = parse_call(text, at, equals + 1, &r);
    else {
        char key[32];
        snprintf(key, sizeof key, "%.*s", (int)(equals - text), text);
        if (!strcmp(key, "temperature")) set->warm = r.device;
        else if (r.device != ANY) return bad(text, "this is so for all devices: without a number before it");
        return parse_value(text, key, equals + 1, set);
    }
    if (!result) set->rules[set->count++] = r;
    return result;
}

int emu_faults_set(const char *text)
{
    rule_set next = {.memory_mib = -1, .warm = ANY};
    char *copy = strdup(text), *rest = copy, *part;
    int result = copy ? 0 : -1;
    while (!result && (part = strsep(&rest, ";"))) {
        while (*part == ' ') part++;
        for (size_t n = strlen(part); n && part[n - 1] == ' '; n--) part[n - 1] = 0;
        if (*part) result = parse_rule(part, &next);
    }
    free(copy);
    if (result) return -1;
    pthread_mutex_lock(&lock);
    active = next;
    any_rule = next.count > 0;
    temperature = next.temperature;
    heat = next.heat;
    warm = next.warm;
    memory_mib = next.memory_mib;
    leak = next.leak;
    no_driver = next.no_driver;
    are_new = true;
    pthread_mutex_unlock(&lock);
    if (emu_num_devices) emu_faults_devices();
    emu_release();
    return 0;
}

static bool is_for(const rule *r, const emu_device *device)
{
    return r->device == ANY || (device && device->id == r->device);
}

/* Without a number "at once" is now, not at the next submission; of rules set before axclInit, when devices are there. An
 * offline device may come back by a reboot, a dead one is dead in each life of the process's runtime. */
void emu_faults_devices(void)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < active.count; i++) {
        rule *r = &active.rules[i];
        if (r->kind != RULE_DEVICE || r->at || (r->seen++ && r->state != EMU_DEAD)) continue;
        for (int d = 0; d < emu_num_devices; d++)
            if (is_for(r, &emu_devices[d])) emu_devices[d].state = (int)r->state;
        emu_count_effect(r->state == EMU_DEAD ? EMU_EFFECT_DEAD : EMU_EFFECT_OFFLINE);
    }
    pthread_mutex_unlock(&lock);
}

/* ---- applying ---------------------------------------------------------------------------------------------------- */

static bool due(rule *r) { return ++r->seen == r->at || (r->onward && r->seen > r->at); }

/* Functions that carry a fault on: into the stream, or into their own wait. */
static bool carries(emu_fn fn)
{
    return fn == EMU_FN_axclrtMemcpyAsync || fn == EMU_FN_axclrtMemsetAsync || fn == EMU_FN_axclrtMemcmpAsync
        || fn == EMU_FN_axclrtEngineExecuteAsync || fn == EMU_FN_axclrtRecordEvent || fn == EMU_FN_axclrtStreamWaitEvent
        || fn == EMU_FN_axclrtStreamWaitEventWithTimeout || fn == EMU_FN_axclrtSynchronizeStreamWithTimeout;
}

axclError emu_fault_call(emu_fn fn)
{
    emu_fault fault = {EMU_FAULT_NONE, 0, 0};
    bool now = false;
    armed = fault;
    if (!atomic_load_explicit(&any_rule, memory_order_relaxed)) return 0;
    emu_context *context = emu_context_current();
    emu_device *device = context ? context->device : NULL;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < active.count; i++) {
        rule *r = &active.rules[i];
        if (r->kind != RULE_CALL || r->fn != fn || !is_for(r, device) || !due(r)) continue;
        fault = r->fault;
        now = r->fail_now;
    }
    pthread_mutex_unlock(&lock);
    if (fault.kind == EMU_FAULT_NONE) return 0;
    emu_count_effect(now ? EMU_EFFECT_FAIL : fault.kind == EMU_FAULT_FAIL_LATER ? EMU_EFFECT_LATER
        : fault.kind == EMU_FAULT_HANG ? EMU_EFFECT_HANG : EMU_EFFECT_BLOCK);
    if (!now && carries(fn)) {
        armed = fault;
        return 0;
    }
    if (fault.kind != EMU_FAULT_FAIL_LATER) {
        emu_hang(device ? device : &emu_devices[0], fault.ms, NULL, 0);
        fault.code = AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_TIMEOUT);
    }
    return emu_refuse(fault.code, "%s was told to %s by the fault list", emu_fn_name(fn),
        now ? "fail" : "hang or fail");
}

emu_fault emu_fault_armed(void)
{
    emu_fault fault = armed;
    armed.kind = EMU_FAULT_NONE;
    return fault;
}

void emu_fault_offline(emu_fn fn)
{
    bool work = carries(fn) && fn != EMU_FN_axclrtSynchronizeStreamWithTimeout;
    work = work || fn == EMU_FN_axclrtMemcpy || fn == EMU_FN_axclrtMemset || fn == EMU_FN_axclrtMemcmp
        || fn == EMU_FN_axclrtEngineExecute;
    if (work) emu_count_add(EMU_COUNT_OFFLINE, 1);
}

void emu_fault_submission(emu_device *device)
{
    emu_count_add(EMU_COUNT_SUBMISSIONS, 1);
    if (!atomic_load_explicit(&any_rule, memory_order_relaxed)) return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < active.count; i++) {
        rule *r = &active.rules[i];
        if (r->kind != RULE_DEVICE || !r->at || !is_for(r, device) || !due(r)) continue;
        device->state = (int)r->state;
        are_new = false;
        emu_count_effect(r->state == EMU_DEAD ? EMU_EFFECT_DEAD : EMU_EFFECT_OFFLINE);
    }
    pthread_mutex_unlock(&lock);
}

bool emu_fault_nan(const emu_device *device, emu_model_kind kind)
{
    bool hit = false;
    if (!atomic_load_explicit(&any_rule, memory_order_relaxed)) return false;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < active.count; i++) {
        rule *r = &active.rules[i];
        if (r->kind == RULE_NAN && (r->model < 0 || r->model == (int)kind) && is_for(r, device) && due(r)) hit = true;
    }
    pthread_mutex_unlock(&lock);
    if (hit) emu_count_effect(EMU_EFFECT_NAN);
    return hit;
}

void emu_fault_heat(emu_device *device)
{
    if (!heat) return;
    atomic_fetch_add(&device->heat, heat);
    if (emu_fault_temperature(device) < 120000) return;
    if (device->state == EMU_ONLINE) emu_count_effect(EMU_EFFECT_HEAT);
    device->state = EMU_OFFLINE; /* the card resets itself */
    are_new = false;
}

int emu_fault_temperature(const emu_device *device)
{
    bool told = temperature && (warm == ANY || warm == device->id);
    return (told ? temperature : emu_config.temperature) + device->heat;
}

int64_t emu_fault_memory_mib(void) { return memory_mib; }
uint64_t emu_fault_leak(void)
{
    if (!leak) return 0;
    are_new = false;
    emu_count_effect(EMU_EFFECT_LEAK);
    return leak;
}

bool emu_fault_no_driver(void)
{
    if (no_driver) emu_count_effect(EMU_EFFECT_DRIVER);
    return no_driver;
}

bool emu_faults_are_new(void) { return are_new; }
void emu_faults_begun(void) { are_new = false; }

/* ---- hanging ----------------------------------------------------------------------------------------------------- */

bool emu_hang(emu_device *device, int ms, const atomic_bool *stop, int64_t deadline)
{
    uint32_t generation = device->generation;
    int64_t bound = emu_now() + (int64_t)(ms ? ms : emu_config.hang_ms) * 1000000;
    bool in_time = true;
    pthread_mutex_lock(&lock);
    while (device->generation == generation && !(stop && *stop)) {
        int64_t now = emu_now(), until = now + 50000000;
        if (deadline && now >= deadline) in_time = false;
        if (!in_time || now >= bound) break;
        if (until > bound) until = bound;
        if (deadline && until > deadline) until = deadline;
        struct timespec t = {until / 1000000000, until % 1000000000};
        pthread_cond_clockwait(&released, &lock, CLOCK_MONOTONIC, &t);
    }
    pthread_mutex_unlock(&lock);
    return in_time;
}

void emu_release(void)
{
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(&released);
    pthread_mutex_unlock(&lock);
}
