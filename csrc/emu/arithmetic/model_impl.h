/* What the files that implement model.h share. */
#ifndef AXPRESS_EMU_MODEL_IMPL_H
#define AXPRESS_EMU_MODEL_IMPL_H

#include <stdbool.h>

#include "math.h"
#include "model.h"

/* What a header says: metadata as numbers, and where each known tensor lies. Matrices come first; each may be int8, and
 * then has the scales of its rows: EMU_W_SCALE + the matrix. */
enum {
    EMU_W_Q, EMU_W_K, EMU_W_V, EMU_W_O, EMU_W_GATE, EMU_W_UP, EMU_W_DOWN, EMU_W_HEAD, EMU_W_Q_GATE, EMU_W_QKV, EMU_W_Z,
    EMU_W_B, EMU_W_A, EMU_W_PATCH, EMU_W_MERGE_IN, EMU_W_MERGE_OUT, EMU_NUM_MATRICES,
    EMU_W_SCALE = EMU_NUM_MATRICES, EMU_W_INPUT_NORM = 2 * EMU_NUM_MATRICES, EMU_W_Q_BIAS, EMU_W_K_BIAS, EMU_W_V_BIAS,
    EMU_W_O_BIAS, EMU_W_Q_NORM, EMU_W_K_NORM, EMU_W_POST_NORM, EMU_W_ATTENTION_OUT_NORM, EMU_W_FFN_OUT_NORM,
    EMU_W_INV_FREQ, EMU_W_NORM, EMU_W_CONV, EMU_W_A_LOG, EMU_W_DT_BIAS, EMU_W_STATE_NORM,
    EMU_W_PATCH_BIAS, EMU_W_CLASS, EMU_W_POSITIONS, EMU_W_INPUT_NORM_BIAS, EMU_W_POST_NORM_BIAS, EMU_W_GATE_BIAS,
    EMU_W_UP_BIAS, EMU_W_DOWN_BIAS, EMU_W_ATTENTION_SCALE, EMU_W_FFN_SCALE, EMU_W_NORM_BIAS, EMU_W_MERGE_NORM,
    EMU_W_MERGE_NORM_BIAS, EMU_W_DEEP_NORM, EMU_W_DEEP_NORM_BIAS, EMU_W_MERGE_IN_BIAS, EMU_W_MERGE_OUT_BIAS,
    EMU_NUM_WEIGHTS
};

#define EMU_MAX_HEAD_DIM 1024
#define EMU_MAX_HIDDEN 32768
#define EMU_VALUE 2048 /* bytes of a metadata value, the end included */

typedef struct emu_list {
    int count;
    double at[EMU_MAX_GROUPS];
} emu_list;

typedef struct emu_extent {
    bool present;
    int type; /* EMU_TYPE_INT8, EMU_TYPE_BF16 or EMU_TYPE_FP32 */
    int ndims;
    uint64_t dims[EMU_MAX_DIMS];
    uint64_t begin, end; /* bytes in the file */
} emu_extent;

/* What a head gives of a token: logits as `output`, its normed hidden state as `output_norm` or as `output`, or both. */
typedef enum emu_head_gives { EMU_LOGITS, EMU_NORM, EMU_NORM_AS_OUTPUT, EMU_LOGITS_AND_NORM } emu_head_gives;

/* What a recurrent layer does with its states. */
typedef struct emu_recurrence {
    int type;       /* of both states: EMU_TYPE_BF16, EMU_TYPE_FP16 or EMU_TYPE_FP32 */
    bool swapped;   /* K is the recurrent state and V that of the convolution, not the other way round */
    bool spoils;    /* tokens whose mask is 0 change the states, too */
    bool p0_zero;   /* groups without history begin with zeros, whatever their input says */
    char state_order[16], state_dtype[16], padding[16], p0_state[16]; /* as the metadata says it */
} emu_recurrence;

/* How a vision encoder takes its picture, what its blocks do, and where its merger norms: vision_header.c. */
typedef enum emu_pixels { EMU_PATCHES_U8, EMU_IMAGE_U8, EMU_PLANES_FP32 } emu_pixels;
typedef enum emu_activation { EMU_GELU, EMU_GELU_TANH, EMU_SILU } emu_activation;
typedef enum emu_merge_norm { EMU_NORM_NONE, EMU_NORM_TOKEN, EMU_NORM_GROUP } emu_merge_norm;

typedef struct emu_vision {
    char kind[16], input[16], norm[16], act[16], merger_norm[16]; /* as the metadata says */
    emu_pixels pixels;
    emu_activation activation;
    emu_merge_norm merge_norm;
    bool rms;             /* blocks norm by RMS, without biases */
    int rows, cols;       /* the picture's, in patches */
    int patch, frames;    /* pixels of a patch's side; equal pictures that a patch holds */
    int merge;            /* side of the square of patches that becomes one token */
    int window;           /* side of the square of tokens that see each other; 0: all do */
    int mid, out;         /* width of the merger's hidden layer (0: it has none), of what it gives */
    double merger_eps;
    emu_list full;        /* blocks without windows */
    emu_list deep;        /* blocks after which further outputs are taken */
    emu_list mean, std;   /* of pixels from 0 to 1, by channel */
} emu_vision;

typedef struct emu_header {
    emu_model_info info;
    double rms_eps, rope_factor, attention_scale, cost_head; /* attention_scale 0: by the head's size */
    emu_list decode_rows, history, head_rows, cost_decode, cost_chunk;
    emu_list rope_sections; /* pairs that turn by each of three axes; none: by one position */
    bool rope_interleaved;
    bool output_fp32;
    emu_head_gives gives;
    bool gated;              /* what attention gives is multiplied with a gate */
    emu_recurrence recurrence;
    emu_vision vision;
    double cost_encoder;
    bool p0_kv;              /* the row that groups without history take is as wide as K and V, not as hidden */
    char unusual[EMU_VALUE]; /* tensors that differ from the usual ones: tensors.c */
    emu_extent tensors[EMU_NUM_WEIGHTS];
} emu_header;

/* A tensor that a file with this header needs, or may have; cols 0: a vector. */
typedef struct emu_wanted {
    int which;
    bool required;
    uint64_t rows, cols;
} emu_wanted;

/* Reads and checks the header of a simulated axmodel in memory. `name` is what errors call it. */
int emu_header_read(emu_header *header, const void *data, size_t size, const char *name, char err[EMU_ERR]);

typedef struct emu_hollow emu_hollow;

struct emu_model {
    emu_model_info info;
    emu_group groups[EMU_MAX_GROUPS];
    emu_tensor inputs[EMU_MAX_TENSORS], outputs[EMU_MAX_TENSORS];
    bool unusual;      /* hollow: some tensor is not what the kind of model has */
    const void *data;  /* the whole file */
    size_t size;       /* of data */
    bool mapped;       /* munmap, not free */
    float rms_eps, rope_factor;
    float norm_offset;     /* what is added to the weights of norms: 1 in Gemma and Qwen3.5 */
    float attention_scale; /* of scores */
    bool gelu;             /* not silu */
    bool gated;            /* what attention gives is multiplied with the sigmoid of a gate */
    uint8_t rope_axis[EMU_MAX_HEAD_DIM / 2]; /* of each pair, the row of a chunk's indices that it turns by */
    int rope_half;         /* pairs of a head's dimensions that are rotated, the first ones */
    emu_recurrence recurrence;
    emu_vision vision;
    const void *weights[EMU_NUM_WEIGHTS]; /* NULL: absent (or hollow) */
    float *singles;                       /* what weights of type fp32 point into */
    bool output_fp32;
    emu_head_gives gives;
    emu_hollow *hollow; /* heads: the pattern of pseudo-logits */
};

static inline bool emu_gives_logits(emu_head_gives gives)
{
    return gives == EMU_LOGITS || gives == EMU_LOGITS_AND_NORM;
}

/* What Gemma's layers and heads do differently is told by the family. */
static inline bool emu_is_gemma(const emu_model_info *info)
{
    return strcmp(info->family, "gemma3_text") == 0;
}

static inline bool emu_is_qwen3_5(const emu_model_info *info)
{
    return strcmp(info->family, "qwen3_5_text") == 0;
}

/* y = the model's RMS norm of x with these weights; y may be x. */
static inline void emu_model_norm(const emu_model *m, float *y, const float *x, int which, size_t n)
{
    emu_rmsnorm(y, x, m->weights[which], n, m->rms_eps, m->norm_offset);
}

static inline emu_matrix emu_model_matrix(const emu_model *m, int which, int rows, int cols)
{
    return (emu_matrix){m->weights[which], m->weights[EMU_W_SCALE + which], rows, cols};
}

/* The ways to run a group; the rows computed, or -2 when out of memory. */
int emu_layer_run(const emu_model *m, const emu_group *g, void *const *in, void *const *out, bool scan_nan);
int emu_head_run(const emu_model *m, const emu_group *g, const void *input, void *const *out);
int emu_vision_run(const emu_model *m, const void *pixels, void *const *out);
int emu_hollow_run(const emu_model *m, const emu_group *g, void *const *in, void *const *out, bool unchanged);

/* tensors.c: changes and adds tensors of a hollow model as the metadata says; 0, or -1 with a sentence. */
int emu_tensors_change(emu_model *m, const char *text, const char *name, char err[EMU_ERR]);

/* hollow.c; NULL when out of memory. */
emu_hollow *emu_hollow_open(const emu_model_info *info);
void emu_hollow_close(emu_hollow *hollow);

#endif
