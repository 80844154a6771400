/* Loading, asking and unloading from several threads, threads without a context, and a device rebooted under a load,
 * for the sanitizers.
 *
 * Linked with every .c file below csrc/emu. Usage: test_loading FOLDER; FOLDER takes a hollow model and a profile. */
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

static char layer_path[512], profile_path[512];

static void write_file(const char *path, const char *text, int model)
{
    uint64_t length = strlen(text);
    FILE *file = fopen(path, "wb");
    CHECK(file && (!model || fwrite(&length, 8, 1, file) == 1));
    CHECK(fwrite(text, length, 1, file) == 1 && !fclose(file));
}

static void *load_and_ask(void *arg)
{
    (void)arg;
    OK(axclrtSetDevice(1));
    for (int i = 0; i < 200; i++) {
        int64_t system, cmm;
        uint64_t model;
        OK(axclrtEngineGetUsage(layer_path, &system, &cmm));
        CHECK(cmm == 65536);
        OK(axclrtEngineLoadFromFile(layer_path, &model));
        OK(axclrtEngineUnload(model));
    }
    OK(axclrtResetDevice(1));
    return NULL;
}

typedef struct shared {
    axclrtStream stream;
    uint8_t *device, *host;
} shared;

/* A thread without a context: the stream says which device it is for. */
static void *use_stream(void *arg)
{
    shared *s = arg;
    for (int i = 0; i < 500; i++) {
        OK(axclrtMemsetAsync(s->device, 7, 64, s->stream));
        OK(axclrtMemcpyAsync(s->host, s->device, 64, AXCL_COPY_DEVICE_TO_HOST, s->stream));
        OK(axclrtSynchronizeStreamWithTimeout(s->stream, 10000));
    }
    return NULL;
}

static void all_at_once(void)
{
    pthread_t threads[6];
    shared s[3];
    for (int i = 0; i < 6; i++) {
        if (i < 3) {
            OK(axclrtCreateStream(&s[i].stream));
            OK(axclrtMalloc((void **)&s[i].device, 64, AXCL_MEM_NORMAL_ONLY));
            OK(axclrtMallocHost((void **)&s[i].host, 64));
        }
        CHECK(!pthread_create(&threads[i], NULL, i < 3 ? use_stream : load_and_ask, i < 3 ? &s[i] : NULL));
    }
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++) {
        CHECK(s[i].host[63] == 7);
        OK(axclrtDestroyStream(s[i].stream));
        OK(axclrtFree(s[i].device));
        OK(axclrtFreeHost(s[i].host));
    }
}

static void *load_for_long(void *arg)
{
    uint64_t model;
    OK(axclrtSetDevice(1));
    *(axclError *)arg = axclrtEngineLoadFromFile(layer_path, &model);
    return NULL;
}

/* The load has begun when its memory is taken; it would last an hour. */
static void reboot_under_load(void)
{
    struct timespec nap = {0, 1000000};
    axclrtDeviceProperties before, now;
    axclError error = 0;
    pthread_t thread;
    OK(axclrtGetDeviceProperties(1, &before));
    CHECK(!pthread_create(&thread, NULL, load_for_long, &error));
    do {
        nanosleep(&nap, NULL);
        OK(axclrtGetDeviceProperties(1, &now));
    } while (now.freeCmmSize == before.freeCmmSize);
    OK(axclrtRebootDevice(1));
    pthread_join(thread, NULL);
    CHECK(error == AXCL_ERR_DEVICE_NOT_CONNECTED);
}

int main(int argc, char **argv)
{
    CHECK(argc > 1);
    snprintf(layer_path, sizeof layer_path, "%s/loading.axmodel", argv[1]);
    snprintf(profile_path, sizeof profile_path, "%s/loading.toml", argv[1]);
    write_file(layer_path,
        "{\"__metadata__\":{\"format\":\"axpress-sim-1\",\"family\":\"qwen3\",\"hidden\":\"64\",\"hollow\":\"1\","
        "\"cmm_bytes\":\"65536\",\"kind\":\"layer\",\"layer\":\"0\",\"heads\":\"4\",\"kv_heads\":\"2\","
        "\"head_dim\":\"16\",\"ffn\":\"128\",\"decode_rows\":\"255\"}}", 1);
    write_file(profile_path,
        "[cost]\ndecode_rows = [1]\ndecode_layer_ms = [0]\nchunk_history = [0]\nchunk_layer_ms = [0]\n"
        "d2d_gb_s = 10\nbus_mb_s = 400\nload_file_ms = 3_600_000\n", 0);
    OK(axclInit(NULL));
    OK(axclrtSetDevice(1));
    OK(axclrtEngineInit(AXCL_VNPU_DISABLED));
    all_at_once();
    OK(axclFinalize());
    OK(axemu_set("PROFILE", profile_path));
    OK(axclInit(NULL));
    OK(axclrtSetDevice(1));
    OK(axclrtEngineInit(AXCL_VNPU_DISABLED));
    reboot_under_load();
    OK(axclFinalize());
    puts("ok");
    return 0;
}
