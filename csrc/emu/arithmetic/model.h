/* Simulated axmodel files: opening, what the runtime may ask about them, and running one shape group.
 *
 * A model is immutable once opened: emu_model_execute may be called from several threads at once on the same model.
 * All pointers are host memory. Nothing here knows of devices, streams, time or pacing.
 */
#ifndef AXPRESS_EMU_MODEL_H
#define AXPRESS_EMU_MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EMU_ERR 256          /* bytes of every `err` argument: one sentence, always terminated */
#define EMU_MAX_TENSORS 8    /* inputs or outputs of a model */
#define EMU_MAX_GROUPS 128   /* shape groups of a model */
#define EMU_MAX_DIMS 4

/* Data types, with the values the AXCL ABI uses. */
enum {
    EMU_TYPE_INT8 = 3, EMU_TYPE_UINT8, EMU_TYPE_INT16, EMU_TYPE_UINT16, EMU_TYPE_INT32, EMU_TYPE_UINT32,
    EMU_TYPE_FP16 = 13, EMU_TYPE_BF16, EMU_TYPE_FP32
};

typedef enum emu_model_kind { EMU_LAYER = 0, EMU_HEAD = 1, EMU_VISION = 2 } emu_model_kind;
typedef enum emu_group_kind {
    EMU_GROUP_DECODE = 0, EMU_GROUP_CHUNK = 1, EMU_GROUP_HEAD = 2, EMU_GROUP_VISION = 3
} emu_group_kind;

/* Positions in the `inputs` and `outputs` arrays. A recurrent layer's K and V are its two states. */
enum { EMU_IN_K = 0, EMU_IN_V = 1, EMU_IN_INDICES = 2, EMU_IN_INPUT = 3, EMU_IN_MASK = 4 };
enum { EMU_OUT_K = 0, EMU_OUT_V = 1, EMU_OUT_OUTPUT = 2 };
enum { EMU_HEAD_IN_INPUT = 0, EMU_HEAD_OUT_OUTPUT = 0 };

typedef struct emu_tensor_shape {
    int ndims;
    int32_t dims[EMU_MAX_DIMS];
    uint64_t bytes;
} emu_tensor_shape;

typedef struct emu_tensor {
    char name[32];                              /* "K_cache" ... */
    int type;                                   /* EMU_TYPE_* */
    emu_tensor_shape shape[EMU_MAX_GROUPS];     /* by group */
} emu_tensor;

typedef struct emu_group {
    emu_group_kind kind;
    int tokens;          /* decode 1, chunk C, head n, vision encoder: what it gives of a picture */
    int rows;            /* cache rows the group looks at: decode R, chunk P (0 for the first), head 0 */
    int ladder_index;    /* index among the groups of the same kind */
    double cost_us;      /* modelled time of one execute from the file, -1 when the file does not say */
} emu_group;

typedef struct emu_model_info {
    emu_model_kind kind;
    int hollow;                  /* shapes and costs only */
    int int8;                    /* some of its matrices are int8 */
    int recurrent;               /* a layer whose K and V are the state of one sequence, not rows of tokens */
    char family[16];             /* qwen3 | qwen2 | llama | gemma3_text | qwen3_5_text; of a vision encoder its kind */
    int layer, layers;           /* index of this layer; number of layers in the package; -1 when absent */
    int hidden, heads, kv_heads, head_dim, ffn, vocab;   /* 0 where it does not apply */
    int chunk;                   /* chunk width C, 0 = no chunk groups */
    int index_rows;              /* rows of a chunk's indices: 1, or 3 for positions of three axes */
    /* recurrent layers: channels and taps of the convolution, heads, sizes of a head */
    int conv_dim, conv_kernel, key_heads, value_heads, key_dim, value_dim;
    int num_inputs, num_outputs, num_groups;
    uint64_t cmm_bytes;          /* what the card's memory is charged */
    uint64_t file_bytes;         /* of the published file: a hollow one tells, others are as large as they are */
    char profile[64];            /* where the costs come from, "" when absent */
    char compiler[64];           /* returned as the model's compiler version */
} emu_model_info;

typedef struct emu_exec_flags {
    /* K/V inputs may hold NaN or infinity (memory never zero-filled): rows hidden by the mask are examined too, because
     * on the card such a value survives the mask. 0: hidden rows are not read at all. */
    int scan_nan;
    /* Hollow heads only: the output buffer still holds exactly what this model's last execute wrote there, so that only
     * the few changed logits need writing. Ignored (everything is written) when the model does not remember this
     * buffer. */
    int output_unchanged;
} emu_exec_flags;

typedef struct emu_model emu_model;

/* Opens a simulated axmodel. The file is mapped and its weights are used in place: do not truncate it while open.
 * NULL on failure; `err` then says in one sentence which file and what is wrong with it. */
emu_model *emu_model_open_file(const char *path, char err[EMU_ERR]);

/* The same from memory; the bytes are copied. */
emu_model *emu_model_open_mem(const void *data, size_t size, char err[EMU_ERR]);

void emu_model_close(emu_model *model);

/* Header only, nothing kept: for questions without a load. 0, or -1 with `err`. */
int emu_model_peek(const char *path, emu_model_info *info, char err[EMU_ERR]);

const emu_model_info *emu_model_get_info(const emu_model *model);
const emu_group *emu_model_group(const emu_model *model, int group);          /* NULL when out of range */
const emu_tensor *emu_model_input(const emu_model *model, int index);         /* NULL when out of range */
const emu_tensor *emu_model_output(const emu_model *model, int index);

/* Runs one shape group. inputs/outputs: one host pointer per tensor, in table order, each of exactly the group's size,
 * none NULL. Outputs may overlap cache rows of K_cache/V_cache (decode or chunk in place) and `output` may be `input`:
 * everything is read before anything is written, so what a row held before is what attention sees if the mask shows it.
 * The last rows of a chunk whose masks show nothing at all (no entry above -10000; of a recurrent layer: that are 0) are
 * padding: they are not computed, their outputs are zeros. flags may be NULL (all zero). Returns the number of rows
 * computed, -1 for a group out of range, -2 when out of memory. */
int emu_model_execute(const emu_model *model, int group, void *const *inputs, void *const *outputs,
    const emu_exec_flags *flags);

/* Process-wide settings.
 * isa: "auto", "scalar", "avx2", "avx512" or "neon"; every choice gives the same bits. 0, or -1 if this CPU or build
 * lacks it (nothing changes). Call it while nothing executes. */
int emu_math_select(const char *isa);
const char *emu_math_isa(void);      /* the one in use */

/* Threads that work on one execute, the calling one included; n < 1 = number of CPUs this process may run on (at most
 * 64). Workers start at the first execute that is large enough, and end at emu_threads_stop (also safe when none runs;
 * they start again on demand). */
void emu_threads_set(int n);
int emu_threads_get(void);
void emu_threads_stop(void);

#ifdef __cplusplus
}
#endif
#endif
