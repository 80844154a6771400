/* Timing profiles: a small strict subset of TOML (comments, [section], key = number | "string" | [numbers]), and what
 * things cost by the chosen one. */
#define _GNU_SOURCE /* dladdr */
#include "profile.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "memory.h"

#define MAX_POINTS 64

typedef struct table {
    double at[MAX_POINTS], ms[MAX_POINTS];
    int num_at, num_ms;
} table;

typedef struct profile {
    char name[64];
    table decode, chunk;
    double head_ms, sync_call_ms, submit_us, d2d_us, d2d_gb_s, bus_mb_s, transfer_us, unpinned_us;
    double load_file_ms, load_mb_s; /* 0: loading takes no time */
    double encoder_ms;              /* of one picture; 0: nothing */
    double recurrent_decode_ms, recurrent_chunk_ms; /* of layers with recurrence; 0: as the others */
    double cmm_mib, idle_cmm_mib, layer_cmm_bytes, head_cmm_bytes, encoder_cmm_bytes;
} profile;

static const profile unpaced = {.name = "none", .cmm_mib = 7040, .idle_cmm_mib = 18};
static profile current = {.name = "none", .cmm_mib = 7040, .idle_cmm_mib = 18};
atomic_bool emu_paced;

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

typedef struct parser {
    const char *path;
    int line;
    char section[32];
    profile *out;
} parser;

static int bad(const parser *p, const char *what, const char *detail)
{
    emu_refuse(-1, "profile %s, line %d: %s%s%s", p->path, p->line, what, *detail ? ": " : "", detail);
    return -1;
}

static const char *skip(const char *s)
{
    while (*s == ' ' || *s == '\t' || *s == '\r') s++;
    return s;
}

static bool at_end(const char *s)
{
    s = skip(s);
    return !*s || *s == '#' || *s == '\n';
}

/* One number, '_' allowed between digits as in TOML. */
static const char *parse_number(const char *s, double *out)
{
    char digits[64];
    size_t n = 0;
    for (; *s && strchr("+-.0123456789eE_", *s) && n < sizeof digits - 1; s++)
        if (*s != '_') digits[n++] = *s;
    digits[n] = 0;
    char *end;
    *out = strtod(digits, &end);
    return n && !*end ? s : NULL;
}

static int parse_numbers(parser *p, const char *s, double *values, int *count)
{
    for (*count = 0, s = skip(s + 1); *s != ']'; s = skip(s)) {
        if (*count == MAX_POINTS) return bad(p, "more than 64 numbers in a list", "");
        s = parse_number(s, &values[*count]);
        if (!s) return bad(p, "a list may hold numbers only, on one line", "");
        (*count)++;
        s = skip(s);
        if (*s == ',') s = skip(s + 1);
        else if (*s != ']') return bad(p, "a list must end with ] on its line", "");
    }
    return at_end(s + 1) ? 0 : bad(p, "text after the list", "");
}

static int parse_string(parser *p, const char *s, char *out, size_t size)
{
    const char *end = strchr(s + 1, '"');
    if (!end || memchr(s + 1, '\\', (size_t)(end - s - 1)))
        return bad(p, "a string must end with \" on its line and have no backslashes", "");
    if (!at_end(end + 1)) return bad(p, "text after the string", "");
    snprintf(out, size, "%.*s", (int)(end - s - 1), s + 1);
    return 0;
}

typedef struct field {
    const char *section, *key;
    size_t offset, count; /* count: of a table's numbers; 0 = a single number */
} field;

#define NUMBER(section, key) {section, #key, offsetof(profile, key), 0}
static const field fields[] = {
    {"cost", "decode_rows", offsetof(profile, decode.at), offsetof(profile, decode.num_at)},
    {"cost", "decode_layer_ms", offsetof(profile, decode.ms), offsetof(profile, decode.num_ms)},
    {"cost", "chunk_history", offsetof(profile, chunk.at), offsetof(profile, chunk.num_at)},
    {"cost", "chunk_layer_ms", offsetof(profile, chunk.ms), offsetof(profile, chunk.num_ms)},
    NUMBER("cost", head_ms), NUMBER("cost", encoder_ms), NUMBER("cost", sync_call_ms), NUMBER("cost", submit_us),
    NUMBER("cost", d2d_us),
    NUMBER("cost", d2d_gb_s), NUMBER("cost", bus_mb_s), NUMBER("cost", transfer_us), NUMBER("cost", unpinned_us),
    NUMBER("cost", load_file_ms), NUMBER("cost", load_mb_s),
    NUMBER("cost", recurrent_decode_ms), NUMBER("cost", recurrent_chunk_ms),
    NUMBER("memory", cmm_mib), NUMBER("memory", idle_cmm_mib), NUMBER("memory", layer_cmm_bytes),
    NUMBER("memory", head_cmm_bytes), NUMBER("memory", encoder_cmm_bytes),
};

static int store(parser *p, const char *key, const char *value)
{
    char text[128], *out = (char *)p->out;
    if (!strcmp(p->section, "model")) return 0; /* for `axpress hollow`, which reads it in Python */
    if (!*p->section && !strcmp(key, "name"))
        return *value == '"' ? parse_string(p, value, p->out->name, sizeof p->out->name)
            : bad(p, "name must be a string", "");
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const field *f = &fields[i];
        if (strcmp(f->section, p->section) || strcmp(f->key, key)) continue;
        if (f->count && *value == '[')
            return parse_numbers(p, value, (double *)(out + f->offset), (int *)(out + f->count));
        if (f->count) return bad(p, "must be a list of numbers", key);
        const char *end = parse_number(value, (double *)(out + f->offset));
        return end && at_end(end) && *(double *)(out + f->offset) >= 0 ? 0
            : bad(p, "must be a number, not negative", key);
    }
    snprintf(text, sizeof text, "%s%s%s", p->section, *p->section ? "." : "", key);
    return bad(p, "unknown key", text);
}

static int parse_line(parser *p, const char *s)
{
    char key[64];
    size_t n;
    s = skip(s);
    if (at_end(s)) return 0;
    if (*s == '[') {
        n = strcspn(s + 1, "]\n");
        snprintf(p->section, sizeof p->section, "%.*s", (int)n, s + 1);
        if (s[n + 1] != ']' || !at_end(s + n + 2)) return bad(p, "a section is [name] alone on its line", "");
        bool known = !strcmp(p->section, "model") || !strcmp(p->section, "cost") || !strcmp(p->section, "memory");
        return known ? 0 : bad(p, "unknown section", p->section);
    }
    n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
    snprintf(key, sizeof key, "%.*s", (int)n, s);
    s = skip(s + n);
    if (!n || *s != '=') return bad(p, "expected key = value", key);
    return store(p, key, skip(s + 1));
}

/* ---- checking and choosing --------------------------------------------------------------------------------------- */

static int check_table(const char *path, const char *name, const table *t)
{
    const char *what = NULL;
    if (!t->num_at || t->num_at != t->num_ms) what = "needs two lists of the same length, not empty";
    for (int i = 0; i < t->num_ms; i++) {
        if (t->ms[i] < 0) what = "has a negative time";
        if (i && t->at[i] <= t->at[i - 1]) what = "must have ascending rows";
    }
    if (what) emu_refuse(-1, "profile %s: the %s table %s", path, name, what);
    return what ? -1 : 0;
}

static int read_profile(const char *path, profile *out)
{
    char line[4096];
    parser p = {.path = path, .out = out};
    FILE *file = fopen(path, "r");
    if (!file) {
        emu_refuse(-1, "profile %s cannot be opened: give the name of a shipped profile, a path with a '/', or none",
            path);
        return -1;
    }
    int result = 0;
    while (!result && fgets(line, sizeof line, file)) {
        p.line++;
        if (strlen(line) == sizeof line - 1) result = bad(&p, "the line is longer than 4094 bytes", "");
        else result = parse_line(&p, line);
    }
    fclose(file);
    if (result) return -1;
    if (check_table(path, "decode", &out->decode) || check_table(path, "chunk", &out->chunk)) return -1;
    if (out->bus_mb_s <= 0 || out->d2d_gb_s <= 0) {
        emu_refuse(-1, "profile %s: bus_mb_s and d2d_gb_s must be above 0", path);
        return -1;
    }
    if (!(out->cmm_mib >= 1 && out->cmm_mib <= EMU_MAX_MEMORY_MIB && out->idle_cmm_mib <= out->cmm_mib)) {
        emu_refuse(-1, "profile %s: cmm_mib must be from 1 to %d, idle_cmm_mib not above it", path, EMU_MAX_MEMORY_MIB);
        return -1;
    }
    return 0;
}

static void find_path(const char *name, char *path, size_t size)
{
    Dl_info self;
    const char *library = dladdr((void *)&emu_paced, &self) && self.dli_fname ? self.dli_fname : "";
    const char *slash = strrchr(library, '/');
    if (strchr(name, '/')) snprintf(path, size, "%s", name);
    else
        snprintf(path, size, "%.*s/../profiles/%s.toml", slash ? (int)(slash - library) : 1, slash ? library : ".",
            name);
}

int emu_profile_set(const char *name)
{
    char path[4096];
    profile next = {.cmm_mib = unpaced.cmm_mib, .idle_cmm_mib = unpaced.idle_cmm_mib};
    if (!strcmp(name, "none") || !*name) {
        current = unpaced;
        emu_paced = false;
        return 0;
    }
    find_path(name, path, sizeof path);
    snprintf(next.name, sizeof next.name, "%s", name);
    if (read_profile(path, &next)) return -1;
    current = next;
    emu_paced = true;
    return 0;
}

const char *emu_profile_name(void) { return current.name; }
int64_t emu_profile_cmm_mib(void) { return (int64_t)current.cmm_mib; }
int64_t emu_profile_idle_mib(void) { return (int64_t)current.idle_cmm_mib; }

/* ---- costs ------------------------------------------------------------------------------------------------------- */

/* Linear between points; below the first constant; above the last constant or going on along the last two. */
static double look_up(const table *t, double at, bool extrapolate)
{
    int n = t->num_at, i = 1;
    if (n == 1 || at <= t->at[0]) return t->ms[0];
    if (at >= t->at[n - 1] && !extrapolate) return t->ms[n - 1];
    while (i < n - 1 && at > t->at[i]) i++;
    double part = (at - t->at[i - 1]) / (t->at[i] - t->at[i - 1]);
    return t->ms[i - 1] + part * (t->ms[i] - t->ms[i - 1]);
}

double emu_cost_execute(const emu_model *model, int group)
{
    const emu_group *g = emu_model_group(model, group);
    if (!emu_paced || !g) return 0;
    if (g->cost_us >= 0) return g->cost_us * 1e3;
    if (g->kind == EMU_GROUP_VISION) return current.encoder_ms * 1e6;
    if (g->kind == EMU_GROUP_HEAD && emu_model_get_info(model)->vocab == 0) return 0; /* a norm: no more than its call */
    if (g->kind == EMU_GROUP_HEAD) return current.head_ms * 1e6 * g->tokens; /* several at once: not known */
    double recurrent = g->kind == EMU_GROUP_DECODE ? current.recurrent_decode_ms : current.recurrent_chunk_ms;
    if (emu_model_get_info(model)->recurrent && recurrent > 0) return recurrent * 1e6;
    if (g->kind == EMU_GROUP_DECODE) return look_up(&current.decode, g->rows, false) * 1e6;
    return look_up(&current.chunk, g->rows, true) * 1e6;
}

double emu_cost_copy(axclrtMemcpyKind kind, size_t n, bool pinned)
{
    double size = (double)n;
    if (!emu_paced || kind == AXCL_COPY_HOST_TO_HOST) return 0;
    if (kind == AXCL_COPY_DEVICE_TO_DEVICE) return current.d2d_us * 1e3 + size / current.d2d_gb_s;
    return (pinned ? current.transfer_us : current.unpinned_us) * 1e3 + size * 1e3 / current.bus_mb_s;
}

double emu_cost_load(uint64_t bytes)
{
    if (!emu_paced) return 0;
    return current.load_file_ms * 1e6 + (current.load_mb_s > 0 ? (double)bytes * 1e3 / current.load_mb_s : 0);
}

double emu_cost_submit(void) { return current.submit_us * 1e3; }
double emu_cost_sync(void) { return current.sync_call_ms * 1e6; }
