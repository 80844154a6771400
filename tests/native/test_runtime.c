/* The emulated runtime under threads, for the sanitizers: a decode loop, streams and events side by side, allocation
 * from several threads, and streams destroyed or devices rebooted under somebody who waits.
 *
 * Linked with every .c file below csrc/emu, or with the library. Usage: test_runtime FOLDER [tokens]; FOLDER takes two
 * hollow model files. With a number of tokens it prints the host time per token of a 28-layer decode loop on no
 * profile. / */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../csrc/emu/api/exports.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s failed; last error: %s\n", __FILE__, __LINE__, #condition, axemu_last_error()); \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define OK(call) CHECK((call) == 0)

enum { LAYERS = 28, HIDDEN = 64, KV = 32, ROWS = 255, VOCAB = 4096 };
#define KV_BYTES ((size_t)ROWS * KV * 2)

static char layer_path[512], head_path[512];

static void write_model(const char *path, const char *metadata)
{
    char json[1024];
    int n = snprintf(json, sizeof json,
        "{\"__metadata__\":{\"format\":\"axpress-sim-1\",\"family\":\"qwen3\",\"hidden\":\"64\",\"hollow\":\"1\","
        "\"layers\":\"28\",\"cmm_bytes\":\"65536\",%s}}", metadata);
    uint64_t length = (uint64_t)n;
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(&length, 8, 1, file) == 1 && fwrite(json, length, 1, file) == 1 && !fclose(file));
}

static void *device_bytes(size_t size)
{
    void *p = NULL;
    OK(axclrtMalloc(&p, size, AXCL_MEM_NORMAL_ONLY));
    OK(axclrtMemset(p, 0, size));
    return p;
}

typedef struct model {
    uint64_t id, context;
    axclrtEngineIOInfo info;
    axclrtEngineIO io;
    void *k, *v;
} model;

static model load(const char *path)
{
    model m = {0};
    OK(axclrtEngineLoadFromFile(path, &m.id));
    OK(axclrtEngineCreateContext(m.id, &m.context));
    OK(axclrtEngineGetIOInfo(m.id, &m.info));
    OK(axclrtEngineCreateIO(m.info, &m.io));
    return m;
}

static void unload(model *m)
{
    OK(axclrtEngineDestroyIO(m->io));
    OK(axclrtEngineDestroyIOInfo(m->info));
    OK(axclrtEngineUnload(m->id));
}

/* ---- a decode loop as the core runs it
 * ------------------------------------------------------------------------------------ */

typedef struct card {
    model head, layers[LAYERS];
    void *mask, *indices, *hidden[2], *head_in, *logits;
    uint8_t *host_mask, *host_embedding, *host_logits;
    uint32_t *host_index;
    axclrtStream stream;
} card;

static void bind_in(model *m, uint32_t i, void *p, size_t n) { OK(axclrtEngineSetInputBufferByIndex(m->io, i, p, n)); }
static void bind_out(model *m, uint32_t i, void *p, size_t n) {
    OK(axclrtEngineSetOutputBufferByIndex(m->io, i, p, n));
}

static void open_card(card *c)
{
    OK(axclrtSetDevice(1));
    OK(axclrtEngineInit(AXCL_VNPU_DISABLED));
    c->head = load(head_path);
    c->mask = device_bytes((ROWS + 1) * 2), c->indices = device_bytes(4);
    c->hidden[0] = device_bytes(HIDDEN * 2), c->hidden[1] = device_bytes(HIDDEN * 2);
    c->head_in = device_bytes(HIDDEN * 2), c->logits = device_bytes(VOCAB * 2);
    OK(axclrtMallocHost((void **)&c->host_mask, (ROWS + 1) * 2));
    OK(axclrtMallocHost((void **)&c->host_embedding, HIDDEN * 2));
    OK(axclrtMallocHost((void **)&c->host_index, 4));
    OK(axclrtMallocHost((void **)&c->host_logits, VOCAB * 2));
    memset(c->host_mask, 0, (ROWS + 1) * 2);
    memset(c->host_embedding, 0, HIDDEN * 2);
    bind_in(&c->head, 0, c->head_in, HIDDEN * 2);
    bind_out(&c->head, 0, c->logits, VOCAB * 2);
    for (int i = 0; i < LAYERS; i++) {
        model *m = &c->layers[i];
        *m = load(layer_path);
        m->k = device_bytes(KV_BYTES), m->v = device_bytes(KV_BYTES);
        bind_in(m, 0, m->k, KV_BYTES), bind_in(m, 1, m->v, KV_BYTES), bind_in(m, 2, c->indices, 4);
        bind_in(m, 3, c->hidden[i % 2], HIDDEN * 2), bind_in(m, 4, c->mask, (ROWS + 1) * 2);
        bind_out(m, 2, c->hidden[1 - i % 2], HIDDEN * 2);
    }
    OK(axclrtCreateStream(&c->stream));
}

static void step(card *c, uint32_t position)
{
    *c->host_index = position;
    OK(axclrtMemcpyAsync(c->mask, c->host_mask, (ROWS + 1) * 2, AXCL_COPY_HOST_TO_DEVICE, c->stream));
    OK(axclrtMemcpyAsync(c->indices, c->host_index, 4, AXCL_COPY_HOST_TO_DEVICE, c->stream));
    OK(axclrtMemcpyAsync(c->hidden[0], c->host_embedding, HIDDEN * 2, AXCL_COPY_HOST_TO_DEVICE, c->stream));
    for (int i = 0; i < LAYERS; i++) {
        model *m = &c->layers[i];
        size_t row = position % ROWS * KV * 2;
        bind_out(m, 0, (char *)m->k + row, KV * 2);
        bind_out(m, 1, (char *)m->v + row, KV * 2);
        OK(axclrtEngineExecuteAsync(m->id, m->context, 0, m->io, c->stream));
    }
    OK(axclrtMemcpyAsync(c->head_in, c->hidden[LAYERS % 2], HIDDEN * 2, AXCL_COPY_DEVICE_TO_DEVICE, c->stream));
    OK(axclrtEngineExecuteAsync(c->head.id, c->head.context, 0, c->head.io, c->stream));
    OK(axclrtMemcpyAsync(c->host_logits, c->logits, VOCAB * 2, AXCL_COPY_DEVICE_TO_HOST, c->stream));
    OK(axclrtSynchronizeStreamWithTimeout(c->stream, 10000));
}

static void close_card(card *c)
{
    OK(axclrtDestroyStream(c->stream));
    for (int i = 0; i < LAYERS; i++) {
        OK(axclrtFree(c->layers[i].k));
        OK(axclrtFree(c->layers[i].v));
        unload(&c->layers[i]);
    }
    unload(&c->head);
    void *device[] = {c->mask, c->indices, c->hidden[0], c->hidden[1], c->head_in, c->logits};
    void *host[] = {c->host_mask, c->host_index, c->host_embedding, c->host_logits};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++) OK(axclrtFree(device[i]));
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) OK(axclrtFreeHost(host[i]));
    OK(axclrtEngineFinalize());
    OK(axclrtResetDevice(1));
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void decode(int tokens, int print)
{
    card c = {0};
    double *us = calloc((size_t)tokens, sizeof *us);
    open_card(&c);
    for (int t = 0; t < tokens; t++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        step(&c, (uint32_t)t);
        clock_gettime(CLOCK_MONOTONIC, &b);
        us[t] = (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3;
    }
    close_card(&c);
    qsort(us, (size_t)tokens, sizeof *us, by_value);
    if (print)
        printf("host time per token, %d layers, %d tokens: median %.1f us, 90%% %.1f us\n", LAYERS,
            tokens, us[tokens / 2], us[tokens * 9 / 10]);
    free(us);
}

/* ---- threads
 * ---------------------------------------------------------------------------------------------------------------- */

static void *churn(void *arg)
{
    axclrtStream stream;
    unsigned seed = *(unsigned *)arg;
    OK(axclrtSetDevice(1));
    OK(axclrtCreateStream(&stream));
    for (int i = 0; i < 300; i++) {
        size_t n = 64 + (size_t)rand_r(&seed) % 5000;
        uint8_t *host = malloc(n);
        void *a = device_bytes(n), *b = device_bytes(n);
        OK(axclrtMemsetAsync(a, (uint8_t)i, n, stream));
        OK(axclrtMemcpyAsync(b, a, n, AXCL_COPY_DEVICE_TO_DEVICE, stream));
        OK(axclrtMemcpyAsync(host, b, n, AXCL_COPY_DEVICE_TO_HOST, stream));
        OK(axclrtSynchronizeStream(stream));
        for (size_t k = 0; k < n; k++) CHECK(host[k] == (uint8_t)i);
        OK(axclrtFree(a));
        OK(axclrtFree(b));
        free(host);
    }
    OK(axclrtDestroyStream(stream));
    OK(axclrtResetDevice(1));
    return NULL;
}

static void many_threads(void)
{
    pthread_t threads[4];
    unsigned seeds[4] = {1, 2, 3, 4};
    for (int i = 0; i < 4; i++) CHECK(!pthread_create(&threads[i], NULL, churn, &seeds[i]));
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

/* Two streams take turns through events; more work than a ring holds. */
static void events(void)
{
    axclrtStream streams[2];
    axclrtEvent done[2];
    enum { TURNS = 700 };
    uint8_t *log;
    OK(axclrtSetDevice(1));
    uint8_t *value = device_bytes(64);
    OK(axclrtMallocHost((void **)&log, TURNS));
    for (int i = 0; i < 2; i++) {
        OK(axclrtCreateStream(&streams[i]));
        OK(axclrtCreateEvent(&done[i]));
    }
    for (int t = 0; t < TURNS; t++) {
        if (t) OK(axclrtStreamWaitEvent(streams[t % 2], done[(t + 1) % 2]));
        OK(axclrtMemsetAsync(value, (uint8_t)t, 64, streams[t % 2]));
        OK(axclrtMemcpyAsync(log + t, value, 1, AXCL_COPY_DEVICE_TO_HOST, streams[t % 2]));
        OK(axclrtRecordEvent(done[t % 2], streams[t % 2]));
    }
    OK(axclrtSynchronizeDevice());
    for (int t = 0; t < TURNS; t++) CHECK(log[t] == (uint8_t)t);
    for (int i = 0; i < 2; i++) {
        OK(axclrtDestroyStream(streams[i]));
        OK(axclrtDestroyEvent(done[i]));
    }
    OK(axclrtFree(value));
    OK(axclrtFreeHost(log));
    OK(axclrtResetDevice(1));
}

typedef struct waiter {
    axclrtContext context;
    axclrtStream stream;
    axclError error;
} waiter;

static void *wait_forever(void *arg)
{
    waiter *w = arg;
    OK(axclrtSetCurrentContext(w->context));
    w->error = axclrtSynchronizeStream(w->stream);
    return NULL;
}

/* A thread waits for a hung stream; another ends it: by force (reboot = 0) or by rebooting the device. */
static void rescue(int reboot)
{
    waiter w = {0};
    pthread_t thread;
    struct timespec nap = {0, 20000000};
    OK(axclrtSetDevice(1));
    OK(axclrtGetCurrentContext(&w.context));
    OK(axclrtCreateStream(&w.stream));
    void *memory = device_bytes(64);
    OK(axemu_set("faults", "axclrtMemsetAsync@1=hang"));
    OK(axclrtMemsetAsync(memory, 1, 64, w.stream));
    OK(axclrtMemsetAsync(memory, 2, 64, w.stream));
    CHECK(axclrtSynchronizeStreamWithTimeout(w.stream, 10) == AXCL_ERR_STREAM_SYNC_TIMEOUT);
    CHECK(!pthread_create(&thread, NULL, wait_forever, &w));
    nanosleep(&nap, NULL);
    if (reboot) OK(axclrtRebootDevice(1));
    else OK(axclrtDestroyStreamForce(w.stream));
    pthread_join(thread, NULL);
    CHECK(w.error != 0);
    OK(axemu_set("faults", ""));
    if (reboot) return;
    OK(axclrtFree(memory));
    OK(axclrtResetDevice(1));
}

/* ---- two threads, one of which ends what the other uses
 * ------------------------------------------------------------------------ */

typedef struct rivals {
    axclrtContext context;
    axclrtStream stream;
    model *layer;
    atomic_int go, succeeded;
} rivals;

static void *submit_until_refused(void *arg)
{
    rivals *r = arg;
    OK(axclrtSetCurrentContext(r->context));
    r->go = 1;
    while (!axclrtEngineExecuteAsync(r->layer->id, r->layer->context, 0, r->layer->io, r->stream)) continue;
    return NULL;
}

static void *destroy_info(void *arg)
{
    rivals *r = arg;
    while (!r->go) continue;
    r->succeeded += axclrtEngineDestroyIOInfo(r->layer->info) == 0;
    return NULL;
}

/* A stream is destroyed by force while another thread submits to it: no operation may be lost, or its IO stays in
 * use for ever. */
static void destroy_under_submit(card *c)
{
    rivals r = {.layer = &c->layers[0]};
    struct timespec nap = {0, 200000};
    pthread_t thread;
    OK(axclrtGetCurrentContext(&r.context));
    bind_out(r.layer, 0, r.layer->k, KV * 2), bind_out(r.layer, 1, r.layer->v, KV * 2);
    for (int i = 0; i < 200; i++) {
        r.go = 0;
        OK(axclrtCreateStream(&r.stream));
        CHECK(!pthread_create(&thread, NULL, submit_until_refused, &r));
        while (!r.go) continue;
        if (i % 2) nanosleep(&nap, NULL);
        OK(axclrtDestroyStreamForce(r.stream));
        pthread_join(thread, NULL);
        bind_out(r.layer, 0, (char *)r.layer->k + KV * 2 * (size_t)(i % 2),
            KV * 2); /* refused while an execute is pending */
    }
}

static void destroy_twice(void)
{
    for (int i = 0; i < 300; i++) {
        model m = load(layer_path);
        rivals r = {.layer = &m};
        pthread_t threads[2];
        for (int t = 0; t < 2; t++) CHECK(!pthread_create(&threads[t], NULL, destroy_info, &r));
        r.go = 1;
        for (int t = 0; t < 2; t++) pthread_join(threads[t], NULL);
        CHECK(r.succeeded == 1);
        OK(axclrtEngineDestroyIO(m.io));
        OK(axclrtEngineUnload(m.id));
    }
}

static void rivalry(void)
{
    card c = {0};
    OK(axclrtSetDevice(1));
    OK(axclrtEngineInit(AXCL_VNPU_DISABLED));
    destroy_twice();
    open_card(&c);
    OK(axclrtResetDevice(1)); /* the one that open_card added */
    destroy_under_submit(&c);
    close_card(&c);
}

/* Sizes near the end of 64 bits are refused, not rounded to nothing. */
static void absurd_sizes(void)
{
    void *p;
    OK(axclrtSetDevice(1));
    for (int shift = 0; shift < 20; shift++) {
        CHECK(axclrtMalloc(&p, SIZE_MAX - ((size_t)1 << shift) + 1, AXCL_MEM_NORMAL_ONLY) == AXCL_ERR_MEMORY_NO_MEMORY);
        CHECK(axclrtMallocHost(&p, SIZE_MAX - ((size_t)1 << shift) + 1) != 0);
    }
    OK(axclrtResetDevice(1));
}

int main(int argc, char **argv)
{
    CHECK(argc > 1);
    snprintf(layer_path, sizeof layer_path, "%s/layer.axmodel", argv[1]);
    snprintf(head_path, sizeof head_path, "%s/post.axmodel", argv[1]);
    write_model(layer_path,
        "\"kind\":\"layer\",\"layer\":\"0\",\"heads\":\"4\",\"kv_heads\":\"2\",\"head_dim\":\"16\",\"ffn\":\"128\","
        "\"decode_rows\":\"255\",\"chunk\":\"64\",\"history\":\"0,128\"");
    write_model(head_path, "\"kind\":\"head\",\"vocab\":\"4096\"");
    OK(axclInit(NULL));
    decode(argc > 2 ? atoi(argv[2]) : 50, argc > 2);
    many_threads();
    events();
    rescue(0);
    rescue(1);
    decode(5, 0);
    rivalry();
    absurd_sizes();
    OK(axclFinalize());
    char report[8192];
    CHECK(axemu_report(report, sizeof report) < (int)sizeof report);
    CHECK(strstr(report, "\"leaks\":[]"));
    puts("ok");
    return 0;
}
