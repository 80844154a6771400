/* The emulator's arithmetic without Python, for sanitizers, other architectures and other C libraries.
 *
 * Build with all of csrc/emu/arithmetic (each kernels_<isa>.c with its instruction set), -ffp-contract=off -Icsrc
 * -pthread -lm. Prints one line per failed check and a fingerprint; exit status 1 if any check failed.
 */
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "emu/arithmetic/json.h"
#include "emu/arithmetic/math.h"
#include "emu/arithmetic/model.h"

static int failures;
#define CHECK(condition) \
    ((condition) ? (void)0 : (void)(failures++, printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition)))

static uint64_t state = 1;
static uint32_t next_random(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}
static float uniform(float low, float high)
{
    return low + (high - low) * (float)(next_random() & 0xffffff) / 16777216.0f;
}
static void fill_bf16(uint16_t *out, size_t n, float low, float high)
{
    for (size_t i = 0; i < n; i++) out[i] = emu_to_bf16(uniform(low, high));
}
static void fill(float *out, size_t n, float low, float high)
{
    for (size_t i = 0; i < n; i++) out[i] = uniform(low, high);
}
static uint64_t fingerprint(uint64_t hash, const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++) hash = (hash ^ ((const uint8_t *)data)[i]) * 1099511628211u;
    return hash;
}

/* Every table against the scalar one. */
static void test_dot(const emu_kernels *scalar, const emu_kernels *other)
{
    enum { ROWS = 11, COLS = 8, MOST = 300 };
    static uint16_t w[ROWS * MOST]; /* as int8 the same bytes */
    static float x[COLS * MOST], a[COLS * ROWS], b[COLS * ROWS];
    for (size_t k = 1; k <= MOST; k += k < 70 ? 1 : 23) {
        fill_bf16(w, ROWS * k, -2, 2);
        fill(x, COLS * k, -3, 3);
        for (int type = EMU_BF16; type <= EMU_INT8; type++) {
            for (int rows = 1; rows <= ROWS; rows += 2) {
                for (int cols = 1; cols <= COLS; cols++) {
                    scalar->dot[type](w, k, rows, x, k, cols, k, a, ROWS);
                    other->dot[type](w, k, rows, x, k, cols, k, b, ROWS);
                    for (int c = 0; c < cols; c++)
                        CHECK(memcmp(a + c * ROWS, b + c * ROWS, (size_t)rows * sizeof *a) == 0);
                }
            }
        }
    }
}

/* The definition, written out. */
static void test_dot_definition(void)
{
    enum { K = 53 };
    int8_t w[K];
    float x[K], lanes[16] = {0}, got;
    fill(x, K, -3, 3);
    for (int i = 0; i < K; i++) {
        w[i] = (int8_t)next_random();
        lanes[i % 16] = fmaf((float)w[i], x[i], lanes[i % 16]);
    }
    for (int half = 8; half >= 1; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    emu_math_kernels()->dot[EMU_INT8](w, K, 1, x, K, 1, K, &got, 1);
    CHECK(got == lanes[0]);
}

static void test_elementwise(const emu_kernels *scalar, const emu_kernels *other)
{
    enum { N = 75 };
    float a[N], b[N], up[N];
    uint16_t mask[N];
    for (int n = 1; n <= N; n++) {
        fill(a, (size_t)n, -30, 30);
        fill(up, (size_t)n, -3, 3);
        fill_bf16(mask, (size_t)n, -5, 0);
        memcpy(b, a, sizeof a);
        float most = scalar->score(a, mask, n, 0.125f);
        CHECK(most == other->score(b, mask, n, 0.125f) && memcmp(a, b, (size_t)n * sizeof *a) == 0);
        CHECK(scalar->weights(a, n, most) == other->weights(b, n, most) && memcmp(a, b, (size_t)n * sizeof *a) == 0);
        fill(a, (size_t)n, -120, 120);
        memcpy(b, a, sizeof a);
        (n % 2 ? scalar->geglu : scalar->swiglu)(a, up, (size_t)n);
        (n % 2 ? other->geglu : other->swiglu)(b, up, (size_t)n);
        CHECK(memcmp(a, b, (size_t)n * sizeof *a) == 0);
        fill(up, (size_t)n, -100, 100);
        scalar->exponential(a, up, (size_t)n);
        other->exponential(b, up, (size_t)n);
        CHECK(memcmp(a, b, (size_t)n * sizeof *a) == 0);
        a[n / 2] = NAN;
        CHECK(isnan(other->weights(a, n, 100.0f)));
    }
}

static void test_sums(const emu_kernels *scalar, const emu_kernels *other)
{
    enum { ROWS = 23, HEADS = 19, DIMS = 77 };
    static uint16_t v[ROWS * DIMS], most_a[DIMS], most_b[DIMS];
    static float p[HEADS * ROWS];
    static double magic[DIMS], a[HEADS * DIMS], b[HEADS * DIMS];
    fill_bf16(v, ROWS * DIMS, -4, 4);
    for (int i = 0; i < HEADS * ROWS; i++) p[i] = (float)(next_random() & 0xffffff);
    for (int i = 0; i < DIMS; i++) magic[i] = ldexp(1.5, 20 + i % 20);
    for (int rows = 0; rows <= ROWS; rows++) {
        memset(most_a, 0, sizeof most_a);
        memset(most_b, 0, sizeof most_b);
        scalar->magnitude(most_a, v, DIMS, rows, DIMS);
        other->magnitude(most_b, v, DIMS, rows, DIMS);
        CHECK(memcmp(most_a, most_b, sizeof most_a) == 0);
        memset(a, 0, sizeof a);
        memset(b, 0, sizeof b);
        scalar->accumulate(a, HEADS, p, ROWS, v, DIMS, rows, magic, DIMS);
        other->accumulate(b, HEADS, p, ROWS, v, DIMS, rows, magic, DIMS);
        CHECK(memcmp(a, b, sizeof a) == 0);
    }
}

static void test_delta(const emu_kernels *scalar, const emu_kernels *other)
{
    enum { KEYS = 21, VALUES = 53 };
    static float a[KEYS * VALUES], b[KEYS * VALUES], k[KEYS], q[KEYS], v[VALUES], x[VALUES], y[VALUES];
    for (int values = 1; values <= VALUES; values += 4) {
        size_t n = KEYS * (size_t)values;
        fill(a, n, -2, 2);
        memcpy(b, a, n * sizeof *a);
        fill(k, KEYS, -1, 1);
        fill(q, KEYS, -1, 1);
        fill(v, (size_t)values, -3, 3);
        for (int step = 0; step < 3; step++) {
            scalar->delta(a, KEYS, values, k, q, v, 0.9f, 0.3f, x);
            other->delta(b, KEYS, values, k, q, v, 0.9f, 0.3f, y);
            CHECK(memcmp(a, b, n * sizeof *a) == 0 && memcmp(x, y, (size_t)values * sizeof *x) == 0);
        }
    }
}

static void test_exponential(void)
{
    double worst = 0;
    for (int i = -87000; i <= 88000; i += 7) {
        float x = (float)i / 1000.0f, y;
        emu_math_kernels()->exponential(&y, &x, 1);
        worst = fmax(worst, fabs(y / exp((double)x) - 1));
    }
    CHECK(worst < ldexp(1, -22));
}

static void test_bf16(void)
{
    CHECK(emu_to_bf16(1.0f) == 0x3f80 && emu_to_bf16(-0.0f) == 0x8000);
    CHECK(emu_to_bf16(1.00390625f) == 0x3f80 && emu_to_bf16(1.01171875f) == 0x3f82); /* halfway: to even */
    CHECK(emu_to_bf16(3.4e38f) == 0x7f80 && emu_to_bf16(INFINITY) == 0x7f80 && emu_to_bf16(-NAN) == 0x7fc0);
}

/* A Qwen3 layer in memory. inv_freq 0: no rotation, hence the same numbers with every C library. */
enum { HIDDEN = 72, HEADS = 6, KV = 2, DIMS = 40, FFN = 100, ROWS = 60, CHUNK = 9, WIDTH = KV * DIMS };

typedef enum kind { SINGLE, SCALES, VECTOR, MATRIX } kind; /* scales only with int8 matrices */

static size_t append_tensor(char *header, size_t at, const char *name, const char *dtype, size_t size, int rows,
    int cols, size_t *offset)
{
    size_t bytes = (size_t)rows * (size_t)(cols ? cols : 1) * size;
    int n = sprintf(header + at, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%d", name, dtype, rows);
    if (cols) n += sprintf(header + at + n, ",%d", cols);
    n += sprintf(header + at + n, "],\"data_offsets\":[%zu,%zu]}", *offset, *offset + bytes);
    *offset += bytes;
    return at + (size_t)n;
}

/* A file with this header and room for so many bytes of tensors, where `data` then points. */
static char *with_data(char *header, size_t at, size_t bytes, size_t *size, char **data)
{
    header[at++] = '}';
    while (at % 8) header[at++] = ' ';
    char *file = calloc(1, *size = 8 + at + bytes);
    for (int i = 0; i < 8; i++) file[i] = (char)(at >> 8 * i);
    memcpy(file + 8, header, at);
    *data = file + 8 + at;
    return file;
}

static char *make_file(size_t *size, bool int8)
{
    static const struct { const char *name; kind kind; int rows, cols;
    } tensors[] = {{"inv_freq", SINGLE, DIMS / 2, 0}, {"q_scale", SCALES, HEADS * DIMS, 0},
        {"k_scale", SCALES, WIDTH, 0}, {"v_scale", SCALES, WIDTH, 0}, {"o_scale", SCALES, HIDDEN, 0},
        {"gate_scale", SCALES, FFN, 0}, {"up_scale", SCALES, FFN, 0}, {"down_scale", SCALES, HIDDEN, 0},
        {"input_norm", VECTOR, HIDDEN, 0}, {"q_norm", VECTOR, DIMS, 0}, {"k_norm", VECTOR, DIMS, 0},
        {"post_norm", VECTOR, HIDDEN, 0}, {"q", MATRIX, HEADS * DIMS, HIDDEN}, {"k", MATRIX, WIDTH, HIDDEN},
        {"v", MATRIX, WIDTH, HIDDEN}, {"o", MATRIX, HIDDEN, HEADS * DIMS}, {"gate", MATRIX, FFN, HIDDEN},
        {"up", MATRIX, FFN, HIDDEN}, {"down", MATRIX, HIDDEN, FFN}};
    static char header[4096];
    size_t bytes = 0, ends[MATRIX + 1] = {0}, at = (size_t)sprintf(header,
        "{\"__metadata__\":{\"format\":\"axpress-sim-1\",\"kind\":\"layer\",\"family\":\"qwen3\",\"layer\":\"3\","
        "\"hidden\":\"%d\",\"heads\":\"%d\",\"kv_heads\":\"%d\",\"head_dim\":\"%d\",\"ffn\":\"%d\","
        "\"decode_rows\":\"%d\",\"chunk\":\"%d\",\"history\":\"0,%d\"}",
        HIDDEN, HEADS, KV, DIMS, FFN, ROWS, CHUNK, ROWS);
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        kind what = tensors[i].kind;
        if (what == SCALES && !int8) continue;
        const char *dtype = what <= SCALES ? "F32" : what == MATRIX && int8 ? "I8" : "BF16";
        at = append_tensor(header, at, tensors[i].name, dtype, what <= SCALES ? 4 : *dtype == 'I' ? 1 : 2,
            tensors[i].rows, tensors[i].cols, &bytes);
        ends[what] = bytes;
    }
    char *data, *file = with_data(header, at, bytes, size, &data);
    size_t scales = ends[SINGLE], words = int8 ? ends[SCALES] : scales, small = int8 ? ends[VECTOR] : bytes;
    for (size_t i = scales; i < words; i += 4) memcpy(data + i, &(float){uniform(0.001f, 0.003f)}, 4);
    fill_bf16((uint16_t *)(void *)(data + words), (small - words) / 2, -0.3f, 0.3f);
    for (size_t i = small; i < bytes; i++) data[i] = (char)(next_random() % 255 - 127);
    return file;
}

typedef struct buffers {
    uint16_t k[ROWS * WIDTH], v[ROWS * WIDTH], x[CHUNK * HIDDEN], mask[CHUNK * (ROWS + CHUNK)];
    uint32_t positions[CHUNK];
    int computed; /* how many of the tokens are no padding */
    uint16_t k_out[CHUNK * WIDTH], v_out[CHUNK * WIDTH], y[CHUNK * HIDDEN];
} buffers;

static void prepare(buffers *b, int tokens)
{
    memset(b, 0, sizeof *b);
    state = 99;
    fill_bf16(b->k, ROWS * WIDTH, -2, 2);
    fill_bf16(b->v, ROWS * WIDTH, -2, 2);
    fill_bf16(b->x, CHUNK * HIDDEN, -1, 1);
    b->computed = tokens;
    for (int t = 0; t < tokens; t++) {
        b->positions[t] = (uint32_t)(50 + t);
        for (int i = 0; i < ROWS + tokens; i++)
            b->mask[t * (ROWS + tokens) + i] = i % 7 == 3 || i > ROWS + t ? 0xc780 : 0;
        b->mask[t * (ROWS + tokens) + ROWS + t] = 0;
    }
}

static void run(const emu_model *m, int group, buffers *b)
{
    void *in[] = {b->k, b->v, b->positions, b->x, b->mask}, *out[] = {b->k_out, b->v_out, b->y};
    CHECK(emu_model_execute(m, group, in, out, &(emu_exec_flags){.scan_nan = 1}) == b->computed);
}

static uint64_t test_layer(const emu_model *m)
{
    static const char *const isas[] = {"scalar", "avx2", "avx512", "neon"};
    static buffers first[3], b;
    uint64_t hash = 14695981039346656037u;
    for (int i = 0; i < 4; i++) {
        if (emu_math_select(isas[i]) != 0) continue;
        for (int threads = 1; threads <= 3; threads++) {
            emu_threads_set(threads);
            for (int group = 0; group < 3; group += 2) {
                prepare(&b, group == 0 ? 1 : CHUNK);
                run(m, group, &b);
                if (i == 0 && threads == 1) first[group] = b;
                CHECK(memcmp(&b, &first[group], sizeof b) == 0);
            }
        }
        printf("%s: compared with scalar\n", isas[i]);
    }
    emu_math_select("auto");
    hash = fingerprint(hash, first[0].y, sizeof first[0].y);
    return fingerprint(fingerprint(hash, first[2].y, sizeof first[2].y), first[2].k_out, sizeof first[2].k_out);
}

/* Several callers at once, each also stopping the pool's threads now and then. */
static void *run_plain(void *argument)
{
    const emu_model *m = argument;
    buffers *b = calloc(1, sizeof *b);
    for (int i = 0; i < 30; i++) {
        void *in[] = {b->k, b->v, b->positions, b->x, b->mask}, *out[] = {b->k_out, b->v_out, b->y};
        if (emu_model_execute(m, 2, in, out, NULL) != CHUNK) abort();
        if (i % 10 == 5) emu_threads_stop();
    }
    free(b);
    return NULL;
}

static void test_callers(const emu_model *m)
{
    pthread_t threads[3];
    emu_threads_set(3);
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, run_plain, (void *)m);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}

static void test_damage(const char *file, size_t size)
{
    char err[EMU_ERR];
    for (size_t cut = 0; cut < size; cut += cut < 2600 ? 1 : 997) {
        emu_model *m = emu_model_open_mem(file, cut, err);
        CHECK(m == NULL && err[0] && strlen(err) < EMU_ERR);
        emu_model_close(m);
    }
    char *copy = malloc(size);
    for (int i = 0; i < 3000; i++) {
        memcpy(copy, file, size);
        for (int j = 0; j < 3; j++) copy[next_random() % 2600] = (char)next_random();
        emu_model_close(emu_model_open_mem(copy, size, err));
    }
    free(copy);
}

static void test_json(void)
{
    static const char *const good[] = {
        "{}", "[1,2.5e-3,\"\\u00e9\\ud83d\\ude00\",null,true]", "{\"a\":{\"b\":[[]]}}", " -0 "};
    static const char *const bad[] = {"", "{", "[1,]", "{\"a\"}", "01", "1.", "-", "\"\\x\"", "\"a",
                                      "nul", "[}", "{}x", "\"\\ud800\"", "\"\t\""};
    json_reader r;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        json_open(&r, good[i], strlen(good[i]));
        CHECK(json_skip(&r) && json_finish(&r));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_open(&r, bad[i], strlen(bad[i]));
        CHECK(!(json_skip(&r) && json_finish(&r)) && r.error);
    }
    char text[16];
    json_open(&r, "\"\\u00e9\\ud83d\\ude00\"", 20);
    CHECK(json_string(&r, text, sizeof text) && strcmp(text, "\xc3\xa9\xf0\x9f\x98\x80") == 0);
}

static void test_file(bool int8)
{
    size_t size;
    char err[EMU_ERR], *file = make_file(&size, int8);
    emu_model *m = emu_model_open_mem(file, size, err);
    if (!m) {
        failures++;
        printf("%s\n", err);
    } else {
        CHECK(emu_model_get_info(m)->int8 == int8);
        printf("fingerprint %s %016llx\n", int8 ? "int8" : "bf16", (unsigned long long)test_layer(m));
        test_callers(m);
        emu_model_close(m);
        test_damage(file, size);
    }
    free(file);
}

/* A recurrent layer in memory: key and value heads of other numbers and sizes. */
enum { KEY_HEADS = 2, VALUE_HEADS = 6, KEY = 12, VALUE = 20, CONV = 2 * KEY_HEADS * KEY + VALUE_HEADS * VALUE };
enum { STATE = VALUE_HEADS * KEY * VALUE, LEFT = 3 * CONV, VALUES = VALUE_HEADS * VALUE };

static char *make_recurrent(size_t *size, const char *dtype)
{
    static const struct { const char *name; int rows, cols;
    } tensors[] = {{"a_log", VALUE_HEADS, 0}, {"dt_bias", VALUE_HEADS, 0}, {"input_norm", HIDDEN, 0},
        {"post_norm", HIDDEN, 0}, {"state_norm", VALUE, 0}, {"conv", 4, CONV}, {"qkv", CONV, HIDDEN},
        {"z", VALUES, HIDDEN}, {"b", VALUE_HEADS, HIDDEN}, {"a", VALUE_HEADS, HIDDEN}, {"o", HIDDEN, VALUES},
        {"gate", FFN, HIDDEN}, {"up", FFN, HIDDEN}, {"down", HIDDEN, FFN}};
    static char header[4096];
    size_t bytes = 0, singles = 2 * 4 * VALUE_HEADS, at = (size_t)sprintf(header,
        "{\"__metadata__\":{\"format\":\"axpress-sim-1\",\"kind\":\"layer\",\"family\":\"qwen3_5_text\","
        "\"layer_kind\":\"recurrent\",\"hidden\":\"%d\",\"heads\":\"2\",\"kv_heads\":\"1\",\"head_dim\":\"8\","
        "\"ffn\":\"%d\",\"decode_rows\":\"%d\",\"chunk\":\"%d\",\"history\":\"0\",\"conv_dim\":\"%d\","
        "\"conv_kernel\":\"4\",\"key_heads\":\"%d\",\"value_heads\":\"%d\",\"key_dim\":\"%d\","
        "\"value_dim\":\"%d\",\"state_dtype\":\"%s\"}",
        HIDDEN, FFN, ROWS, CHUNK, CONV, KEY_HEADS, VALUE_HEADS, KEY, VALUE, dtype);
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        at = append_tensor(header, at, tensors[i].name, i < 2 ? "F32" : "BF16", i < 2 ? 4 : 2, tensors[i].rows,
            tensors[i].cols, &bytes);
    char *data, *file = with_data(header, at, bytes, size, &data);
    for (size_t i = 0; i < singles; i += 4) memcpy(data + i, &(float){uniform(-2, 1)}, 4);
    fill_bf16((uint16_t *)(void *)(data + singles), (bytes - singles) / 2, -0.3f, 0.3f);
    return file;
}

typedef struct states {
    uint16_t conv[2 * LEFT], recurrent[2 * STATE], y[CHUNK * HIDDEN]; /* room for fp32 */
} states;

/* Two chunks, the second with two tokens of padding, then a token: states in place. */
static void run_recurrent(const emu_model *m, states *s)
{
    static const uint32_t positions[CHUNK];
    uint16_t mask[CHUNK], x[CHUNK * HIDDEN];
    memset(s, 0, sizeof *s);
    state = 5;
    for (int step = 0; step < 3; step++) {
        int tokens = step == 1 ? CHUNK - 2 : step == 2 ? 1 : CHUNK;
        fill_bf16(x, CHUNK * HIDDEN, -1, 1);
        for (int t = 0; t < CHUNK; t++) mask[t] = t < tokens ? 0x3f80 : 0;
        void *in[] = {s->conv, s->recurrent, (void *)positions, x, mask}, *out[] = {s->conv, s->recurrent, s->y};
        CHECK(emu_model_execute(m, step == 2 ? 0 : 1, in, out, NULL) == tokens);
    }
}

static void test_recurrent(const char *dtype)
{
    static const char *const isas[] = {"scalar", "avx2", "avx512", "neon"};
    static states first, s;
    size_t size;
    char err[EMU_ERR], *file = make_recurrent(&size, dtype);
    emu_model *m = emu_model_open_mem(file, size, err);
    if (!m) failures++, printf("%s\n", err);
    for (int i = 0; m && i < 4; i++) {
        if (emu_math_select(isas[i]) != 0) continue;
        for (int threads = 1; threads <= 3; threads++) {
            emu_threads_set(threads);
            run_recurrent(m, &s);
            if (i == 0 && threads == 1) first = s;
            CHECK(memcmp(&s, &first, sizeof s) == 0);
        }
    }
    emu_math_select("auto");
    printf("fingerprint recurrent-%s %016llx\n", dtype, (unsigned long long)fingerprint(1, &first, sizeof first));
    if (m) emu_model_close(m);
    test_damage(file, size);
    free(file);
}

/* A vision encoder in memory, of either kind: whole pictures with a class token, layer norms and one product to merge; or
 * patches that turn by row and column, with windows, gates, RMS norms, two products and a further output. */
enum { BLOCKS = 2, SIDE = 4, PIXELS = 2, SEEN = 16, SEEN_FFN = 24, GROUP = 4 * SEEN, MID = 20, GIVEN = 12 };
enum { TOKENS = SIDE * SIDE / 4, PICTURE = SIDE * SIDE * PIXELS * PIXELS * 3 };

typedef struct vision_tensor {
    const char *name;
    int which, rows, cols; /* 1: of pictures, 2: of patches, 3: of both */
} vision_tensor;

static const vision_tensor vision_singles[] = {{"class", 1, SEEN, 0}, {"positions", 1, SIDE * SIDE, SEEN},
    {"inv_freq", 2, 2, 0}};
static const vision_tensor vision_words[] = {{"patch", 1, SEEN, 12}, {"patch", 2, SEEN, 24}, {"patch_bias", 1, SEEN, 0},
    {"q", 3, BLOCKS * SEEN, SEEN}, {"k", 3, BLOCKS * SEEN, SEEN}, {"v", 3, BLOCKS * SEEN, SEEN},
    {"o", 3, BLOCKS * SEEN, SEEN}, {"gate", 2, BLOCKS * SEEN_FFN, SEEN}, {"up", 3, BLOCKS * SEEN_FFN, SEEN},
    {"down", 3, BLOCKS * SEEN, SEEN_FFN}, {"q_bias", 3, BLOCKS, SEEN}, {"up_bias", 1, BLOCKS, SEEN_FFN},
    {"input_norm", 3, BLOCKS, SEEN}, {"post_norm", 3, BLOCKS, SEEN}, {"input_norm_bias", 1, BLOCKS, SEEN},
    {"post_norm_bias", 1, BLOCKS, SEEN}, {"attention_out_scale", 1, BLOCKS, SEEN}, {"ffn_out_scale", 1, BLOCKS, SEEN},
    {"norm", 1, SEEN, 0}, {"norm_bias", 1, SEEN, 0}, {"merge_norm", 2, SEEN, 0}, {"deep_norm", 2, 1, GROUP},
    {"merge_in", 2, 2 * MID, GROUP}, {"merge_in_bias", 2, 2, MID}, {"merge_out", 2, 2 * GIVEN, MID},
    {"merge_out", 1, GIVEN, GROUP}};

static char *make_vision(size_t *size, bool patches)
{
    static const char picture[] = "\"vision_input\":\"image_u8\",\"norm\":\"layer\",\"activation\":\"gelu\","
        "\"merger_norm\":\"none\"", patch[] = "\"vision_input\":\"patches_u8\",\"frames\":\"2\",\"norm\":\"rms\","
        "\"activation\":\"silu\",\"merger_norm\":\"token\",\"merger_hidden\":\"20\",\"window\":\"1\","
        "\"full_blocks\":\"1\",\"deepstack\":\"0\"";
    static char header[8192];
    size_t bytes = 0, singles, at = (size_t)sprintf(header,
        "{\"__metadata__\":{\"format\":\"axpress-sim-1\",\"kind\":\"vision\",\"vision_kind\":\"test\",%s,"
        "\"layers\":\"%d\",\"hidden\":\"%d\",\"heads\":\"2\",\"head_dim\":\"8\",\"ffn\":\"%d\","
        "\"image_rows\":\"%d\",\"image_cols\":\"%d\",\"patch_size\":\"%d\",\"merge\":\"2\",\"out_hidden\":\"%d\","
        "\"pixel_mean\":\"0.5,0.4,0.3\",\"pixel_std\":\"0.5,0.4,0.3\"}",
        patches ? patch : picture, BLOCKS, SEEN, SEEN_FFN, SIDE, SIDE, PIXELS, GIVEN);
    for (size_t i = 0; i < sizeof vision_singles / sizeof *vision_singles; i++)
        if (vision_singles[i].which >> patches & 1)
            at = append_tensor(header, at, vision_singles[i].name, "F32", 4, vision_singles[i].rows,
                vision_singles[i].cols, &bytes);
    singles = bytes;
    for (size_t i = 0; i < sizeof vision_words / sizeof *vision_words; i++)
        if (vision_words[i].which >> patches & 1)
            at = append_tensor(header, at, vision_words[i].name, "BF16", 2, vision_words[i].rows,
                vision_words[i].cols, &bytes);
    char *data, *file = with_data(header, at, bytes, size, &data);
    for (size_t i = 0; i < singles; i += 4) memcpy(data + i, &(float){uniform(-1, 1)}, 4);
    fill_bf16((uint16_t *)(void *)(data + singles), (bytes - singles) / 2, -0.5f, 0.5f);
    return file;
}

static void test_vision(bool patches)
{
    static const char *const isas[] = {"scalar", "avx2", "avx512", "neon"};
    static uint8_t pixels[2 * PICTURE];
    static float first[2][TOKENS * GIVEN], seen[2][TOKENS * GIVEN];
    size_t size;
    char err[EMU_ERR], *file = make_vision(&size, patches);
    for (int i = 0; i < 2 * PICTURE; i++) pixels[i] = (uint8_t)(i * 37 % 251);
    emu_model *m = emu_model_open_mem(file, size, err);
    if (!m) failures++, printf("%s\n", err);
    for (int i = 0; m && i < 4; i++) {
        if (emu_math_select(isas[i]) != 0) continue;
        for (int threads = 1; threads <= 3; threads++) {
            emu_threads_set(threads);
            memset(seen, 0, sizeof seen);
            CHECK(emu_model_execute(m, 0, (void *[]){pixels}, (void *[]){seen[0], seen[1]}, NULL) == TOKENS);
            if (i == 0 && threads == 1) memcpy(first, seen, sizeof first);
            CHECK(memcmp(seen, first, sizeof seen) == 0);
        }
    }
    emu_math_select("auto");
    printf("fingerprint vision-%s %016llx\n", patches ? "patches" : "picture",
        (unsigned long long)fingerprint(1, first, sizeof first));
    if (m) emu_model_close(m);
    test_damage(file, size);
    free(file);
}

int main(void)
{
    const emu_kernels *all[] = {emu_kernels_avx2(), emu_kernels_avx512(), emu_kernels_neon()};
    for (int i = 0; i < 3; i++) {
        if (!all[i] || emu_math_select(all[i]->name) != 0) continue;
        test_dot(emu_kernels_scalar(), all[i]);
        test_elementwise(emu_kernels_scalar(), all[i]);
        test_sums(emu_kernels_scalar(), all[i]);
        test_delta(emu_kernels_scalar(), all[i]);
    }
    emu_math_select("auto");
    test_dot_definition();
    test_exponential();
    test_bf16();
    test_json();
    state = 7;
    for (int int8 = 0; int8 < 2; int8++) test_file(int8);
    test_recurrent("bf16");
    test_recurrent("fp16");
    test_recurrent("fp32");
    test_vision(false);
    test_vision(true);
    emu_threads_stop();
    printf("%s, %d failed\n", emu_math_isa(), failures);
    return failures != 0;
}
