/* The binary interface of the AXCL runtime (libaxcl_rt.so), as far as this project uses it.
 *
 * Written from the facts of the ABI: names, argument order, struct layouts, enum and error values. One file serves both
 * sides: the core resolves AXCL_REQUIRED and AXCL_OPTIONAL with dlsym, the emulated runtime is checked against them by
 * the compiler.
 *
 * Every function returns 0 or an error value below, except the few whose return type is not axclError.
 */
#ifndef AXPRESS_AXCL_ABI_H
#define AXPRESS_AXCL_ABI_H

#include <stddef.h>
#include <stdint.h>

/* ---- error values ------------------------------------------------------------------------------------------------ */

typedef int32_t axclError;

/* 0x80000000 | module << 24 | 0x30 << 16 | sub << 8 | id; the runtime is module 0 */
#define AXCL_ERROR(sub, id) ((axclError)(0x80300000u | ((uint32_t)(sub) << 8) | (uint32_t)(id)))

enum {
    AXCL_SUB_DEVICE = 0x1,
    AXCL_SUB_CONTEXT = 0x2,
    AXCL_SUB_STREAM = 0x3, /* events report with this sub module, too */
    AXCL_SUB_TASK = 0x4,
    AXCL_SUB_MEMORY = 0x5,
    AXCL_SUB_CONFIG = 0x6,
    AXCL_SUB_ENGINE = 0x7,
    AXCL_SUB_SYSLOG = 0x8,
    AXCL_SUB_SYSCTRL = 0x9,
    AXCL_SUB_LATENCY = 0xA,
    AXCL_SUB_P2P = 0xB,
    AXCL_SUB_USER_WORK = 0xC
};

/* ids that every sub module shares */
enum {
    AXCL_ID_FAIL = 0x01,
    AXCL_ID_NULL_POINTER = 0x02,
    AXCL_ID_ILLEGAL_PARAM = 0x03,
    AXCL_ID_UNSUPPORTED = 0x04,
    AXCL_ID_TIMEOUT = 0x05,
    AXCL_ID_BUSY = 0x06,
    AXCL_ID_NO_MEMORY = 0x07,
    AXCL_ID_ENCODE = 0x08,
    AXCL_ID_DECODE = 0x09,
    AXCL_ID_UNEXPECTED_RESPONSE = 0x0A,
    AXCL_ID_OPEN = 0x0B,
    AXCL_ID_EXECUTE_FAIL = 0x0C
};

/* ids of one sub module */
enum {
    AXCL_ID_DEVICE_QUERY = 0x80,
    AXCL_ID_DEVICE_NOT_CONNECTED = 0x81,
    AXCL_ID_DEVICE_PROBE = 0x82,
    AXCL_ID_DEVICE_NOT_ACTIVE = 0x83,
    AXCL_ID_DEVICE_INVALID_ID = 0x84,
    AXCL_ID_DEVICE_NO_ACTIVE = 0x85,
    AXCL_ID_DEVICE_PORT_ALLOCATE = 0x86,
    AXCL_ID_DEVICE_REBOOT = 0x87,
    AXCL_ID_DEVICE_PORT_DESTROY = 0x88,

    AXCL_ID_CONTEXT_CREATE = 0x81,
    AXCL_ID_CONTEXT_DESTROY = 0x82,
    AXCL_ID_CONTEXT_BIND = 0x83,
    AXCL_ID_CONTEXT_NONE_BOUND = 0x84,

    AXCL_ID_STREAM_CREATE = 0x81,
    AXCL_ID_STREAM_DESTROY = 0x82,
    AXCL_ID_STREAM_SYNC_TIMEOUT = 0x83,

    AXCL_ID_EVENT_CREATE = 0x81,
    AXCL_ID_EVENT_DESTROY = 0x82,
    AXCL_ID_EVENT_RECORD = 0x83,
    AXCL_ID_EVENT_WAIT = 0x84,

    AXCL_ID_MEMORY_NOT_DEVICE = 0x81,

    AXCL_ID_ENGINE_INVALID_INDEX = 0x81
};

#define AXCL_ERR_STREAM_SYNC_TIMEOUT AXCL_ERROR(AXCL_SUB_STREAM, AXCL_ID_STREAM_SYNC_TIMEOUT)
#define AXCL_ERR_NO_DRIVER AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_OPEN) /* what axclInit answers without one */
#define AXCL_ERR_MEMORY_NO_MEMORY AXCL_ERROR(AXCL_SUB_MEMORY, AXCL_ID_NO_MEMORY)
#define AXCL_ERR_DEVICE_NOT_CONNECTED AXCL_ERROR(AXCL_SUB_DEVICE, AXCL_ID_DEVICE_NOT_CONNECTED)
#define AXCL_ERR_ENGINE_EXECUTE_FAIL AXCL_ERROR(AXCL_SUB_ENGINE, AXCL_ID_EXECUTE_FAIL)

/* ---- types ------------------------------------------------------------------------------------------------------- */

typedef void *axclrtContext;
typedef void *axclrtStream;
typedef void *axclrtEvent;
typedef void *axclrtEngineIOInfo;
typedef void *axclrtEngineIO;
typedef uint32_t axclrtEngineSet; /* bit set of NPU cores */

#define AXCL_MAX_DEVICES 256
#define AXCL_MAX_DIMS 32

typedef struct {
    uint32_t num;
    int32_t devices[AXCL_MAX_DEVICES];
} axclrtDeviceList;

typedef struct {
    char swVersion[64];
    uint64_t uid;
    uint32_t pciDomain;
    uint32_t pciBusID;
    uint32_t pciDeviceID;
    int32_t temperature; /* junction, millidegrees Celsius */
    uint32_t totalMemSize; /* this and the next three: KiB */
    uint32_t freeMemSize;
    uint32_t totalCmmSize;
    uint32_t freeCmmSize;
    uint32_t cpuLoading; /* percent x 100 by the vendor's comment; whole percents are seen */
    uint32_t npuLoading;
    uint32_t reserved[32];
} axclrtDeviceProperties;

typedef enum {
    AXCL_MEM_HUGE_FIRST = 0,
    AXCL_MEM_HUGE_ONLY = 1,
    AXCL_MEM_NORMAL_ONLY = 2,
    AXCL_MEM_SIZE_ALIGN = 3
} axclrtMemMallocPolicy;

typedef enum {
    AXCL_COPY_HOST_TO_HOST = 0,
    AXCL_COPY_HOST_TO_DEVICE = 1,
    AXCL_COPY_DEVICE_TO_HOST = 2,
    AXCL_COPY_DEVICE_TO_DEVICE = 3,
    AXCL_COPY_HOST_PHYS_TO_DEVICE = 4,
    AXCL_COPY_DEVICE_TO_HOST_PHYS = 5
} axclrtMemcpyKind;

typedef enum {
    AXCL_VNPU_DISABLED = 0, /* the whole NPU as one: what an LLM wants */
    AXCL_VNPU_ENABLED = 1,
    AXCL_VNPU_BIG_LITTLE = 2,
    AXCL_VNPU_LITTLE_BIG = 3
} axclrtEngineVNpuKind;

typedef enum { AXCL_MODEL_1_CORE = 0, AXCL_MODEL_2_CORES = 1, AXCL_MODEL_3_CORES = 2 } axclrtEngineModelKind;

typedef enum { AXCL_LAYOUT_NONE = 0, AXCL_LAYOUT_NHWC = 1, AXCL_LAYOUT_NCHW = 2 } axclrtEngineDataLayout;

typedef enum {
    AXCL_TYPE_NONE = 0,
    AXCL_TYPE_INT4 = 1,
    AXCL_TYPE_UINT4 = 2,
    AXCL_TYPE_INT8 = 3,
    AXCL_TYPE_UINT8 = 4,
    AXCL_TYPE_INT16 = 5,
    AXCL_TYPE_UINT16 = 6,
    AXCL_TYPE_INT32 = 7,
    AXCL_TYPE_UINT32 = 8,
    AXCL_TYPE_INT64 = 9,
    AXCL_TYPE_UINT64 = 10,
    AXCL_TYPE_FP4 = 11,
    AXCL_TYPE_FP8 = 12,
    AXCL_TYPE_FP16 = 13,
    AXCL_TYPE_BF16 = 14,
    AXCL_TYPE_FP32 = 15,
    AXCL_TYPE_FP64 = 16
} axclrtEngineDataType;

typedef struct {
    int32_t dimCount;
    int32_t dims[AXCL_MAX_DIMS];
} axclrtEngineIODims;

/* of the next generation's runtime (AX8860), by its documentation: nobody here has seen one */
typedef enum { AXCL_MEMORY_CMM = 0, AXCL_MEMORY_SYSTEM = 1 } axclrtMemAttr;

typedef enum {
    AXCL_DEVICE_PHYSICAL_ID = 0,
    AXCL_DEVICE_TRANSPORT = 1, /* 0 local, 1 PCIe, 2 USB */
    AXCL_DEVICE_UID = 2,
    AXCL_DEVICE_PCIE_DOMAIN = 3,
    AXCL_DEVICE_PCIE_BUS = 4,
    AXCL_DEVICE_PCIE_DEVICE = 5,
    AXCL_DEVICE_PCIE_FUNCTION = 6
} axclrtDevAttr;

typedef enum { AXCL_DEVICE_ABNORMAL = 0, AXCL_DEVICE_NORMAL = 1 } axclrtDeviceStatus;

/* ---- functions: X(return type, name, (arguments)) --- */

/* Without one of these the runtime cannot drive a decode core: loading it fails. Only what nothing else can stand in
 * for: the next generation of cards drops some that this one has. */
#define AXCL_REQUIRED(X) \
    X(axclError, axclInit, (const char *config)) \
    X(axclError, axclFinalize, (void)) \
    X(axclError, axclrtGetVersion, (int32_t * major, int32_t * minor, int32_t * patch)) \
    X(axclError, axclrtSetDevice, (int32_t device)) \
    X(axclError, axclrtResetDevice, (int32_t device)) \
    X(axclError, axclrtCreateContext, (axclrtContext * context, int32_t device)) \
    X(axclError, axclrtDestroyContext, (axclrtContext context)) \
    X(axclError, axclrtSetCurrentContext, (axclrtContext context)) \
    X(axclError, axclrtMalloc, (void **device_ptr, size_t size, axclrtMemMallocPolicy policy)) \
    X(axclError, axclrtFree, (void *device_ptr)) \
    X(axclError, axclrtMallocHost, (void **host_ptr, size_t size)) \
    X(axclError, axclrtFreeHost, (void *host_ptr)) \
    X(axclError, axclrtMemset, (void *device_ptr, uint8_t value, size_t count)) \
    X(axclError, axclrtMemcpy, (void *dst, const void *src, size_t count, axclrtMemcpyKind kind)) \
    X(axclError, axclrtMemcpyAsync, \
      (void *dst, const void *src, size_t count, axclrtMemcpyKind kind, axclrtStream stream)) \
    X(axclError, axclrtCreateStream, (axclrtStream * stream)) \
    X(axclError, axclrtDestroyStream, (axclrtStream stream)) \
    X(axclError, axclrtSynchronizeStreamWithTimeout, (axclrtStream stream, int32_t timeout_ms)) \
    X(axclError, axclrtEngineInit, (axclrtEngineVNpuKind kind)) \
    X(axclError, axclrtEngineFinalize, (void)) \
    X(axclError, axclrtEngineLoadFromFile, (const char *path, uint64_t *model)) \
    X(axclError, axclrtEngineUnload, (uint64_t model)) \
    X(axclError, axclrtEngineCreateContext, (uint64_t model, uint64_t * context)) \
    X(axclError, axclrtEngineGetIOInfo, (uint64_t model, axclrtEngineIOInfo * info)) \
    X(axclError, axclrtEngineDestroyIOInfo, (axclrtEngineIOInfo info)) \
    X(axclError, axclrtEngineGetShapeGroupsCount, (axclrtEngineIOInfo info, int32_t * count)) \
    X(uint32_t, axclrtEngineGetNumInputs, (axclrtEngineIOInfo info)) \
    X(uint32_t, axclrtEngineGetNumOutputs, (axclrtEngineIOInfo info)) \
    X(uint64_t, axclrtEngineGetInputSizeByIndex, (axclrtEngineIOInfo info, uint32_t group, uint32_t index)) \
    X(uint64_t, axclrtEngineGetOutputSizeByIndex, (axclrtEngineIOInfo info, uint32_t group, uint32_t index)) \
    X(axclError, axclrtEngineGetInputDims, \
      (axclrtEngineIOInfo info, uint32_t group, uint32_t index, axclrtEngineIODims * dims)) \
    X(axclError, axclrtEngineGetOutputDims, \
      (axclrtEngineIOInfo info, uint32_t group, uint32_t index, axclrtEngineIODims * dims)) \
    X(const char *, axclrtEngineGetInputNameByIndex, (axclrtEngineIOInfo info, uint32_t index)) \
    X(const char *, axclrtEngineGetOutputNameByIndex, (axclrtEngineIOInfo info, uint32_t index)) \
    X(axclError, axclrtEngineGetInputDataType, (axclrtEngineIOInfo info, uint32_t index, axclrtEngineDataType * type))\
    X(axclError, axclrtEngineGetOutputDataType, (axclrtEngineIOInfo info, uint32_t index, axclrtEngineDataType * type))\
    X(axclError, axclrtEngineCreateIO, (axclrtEngineIOInfo info, axclrtEngineIO * io)) \
    X(axclError, axclrtEngineDestroyIO, (axclrtEngineIO io)) \
    X(axclError, axclrtEngineSetInputBufferByIndex, \
      (axclrtEngineIO io, uint32_t index, const void *device_ptr, uint64_t size)) \
    X(axclError, axclrtEngineSetOutputBufferByIndex, \
      (axclrtEngineIO io, uint32_t index, const void *device_ptr, uint64_t size)) \
    X(axclError, axclrtEngineExecute, (uint64_t model, uint64_t context, uint32_t group, axclrtEngineIO io))

/* A missing one of these is a missing feature. */
#define AXCL_OPTIONAL(X) \
    X(const char *, axclrtGetSocName, (void)) \
    X(axclError, axclrtGetDeviceList, (axclrtDeviceList * list)) \
    X(axclError, axclrtGetDeviceCount, (uint32_t * count)) \
    X(axclError, axclrtGetDeviceProperties, (int32_t device, axclrtDeviceProperties * properties)) \
    X(axclError, axclrtGetCurrentContext, (axclrtContext * context)) \
    X(axclError, axclrtSynchronizeStream, (axclrtStream stream)) \
    X(axclError, axclrtEngineExecuteAsync, \
      (uint64_t model, uint64_t context, uint32_t group, axclrtEngineIO io, axclrtStream stream)) \
    X(const char *, axclrtGetFullVersion, (void)) \
    X(axclError, axclrtGetDevice, (int32_t * device)) \
    X(axclError, axclrtSynchronizeDevice, (void)) \
    X(axclError, axclrtRebootDevice, (int32_t device)) \
    X(axclError, axclrtGetDefaultContext, (axclrtContext * context, int32_t device)) \
    X(axclError, axclrtMallocCached, (void **device_ptr, size_t size, axclrtMemMallocPolicy policy)) \
    X(axclError, axclrtMemsetAsync, (void *device_ptr, uint8_t value, size_t count, axclrtStream stream)) \
    X(axclError, axclrtMemFlush, (void *device_ptr, size_t size)) \
    X(axclError, axclrtMemInvalidate, (void *device_ptr, size_t size)) \
    X(axclError, axclrtMemcmp, (const void *device_a, const void *device_b, size_t count)) \
    X(axclError, axclrtDestroyStreamForce, (axclrtStream stream)) \
    X(axclError, axclrtCreateEvent, (axclrtEvent * event)) \
    X(axclError, axclrtDestroyEvent, (axclrtEvent event)) \
    X(axclError, axclrtRecordEvent, (axclrtEvent event, axclrtStream stream)) \
    X(axclError, axclrtStreamWaitEvent, (axclrtStream stream, axclrtEvent event)) \
    X(axclError, axclrtStreamWaitEventWithTimeout, (axclrtStream stream, axclrtEvent event, int32_t timeout_ms)) \
    X(axclError, axclrtEngineGetVNpuKind, (axclrtEngineVNpuKind * kind)) \
    X(axclError, axclrtEngineLoadFromMem, (const void *device_ptr, uint64_t size, uint64_t *model)) \
    X(axclError, axclrtEngineGetUsage, (const char *path, int64_t *system_bytes, int64_t *cmm_bytes)) \
    X(axclError, axclrtEngineGetUsageFromModelId, (uint64_t model, int64_t * system_bytes, int64_t * cmm_bytes)) \
    X(axclError, axclrtEngineGetModelType, (const char *path, axclrtEngineModelKind *kind)) \
    X(axclError, axclrtEngineGetModelTypeFromModelId, (uint64_t model, axclrtEngineModelKind * kind)) \
    X(const char *, axclrtEngineGetModelCompilerVersion, (uint64_t model)) \
    X(axclError, axclrtEngineSetAffinity, (uint64_t model, axclrtEngineSet set)) \
    X(axclError, axclrtEngineGetAffinity, (uint64_t model, axclrtEngineSet * set)) \
    X(int32_t, axclrtEngineGetInputIndexByName, (axclrtEngineIOInfo info, const char *name)) \
    X(int32_t, axclrtEngineGetOutputIndexByName, (axclrtEngineIOInfo info, const char *name)) \
    X(axclError, axclrtEngineGetInputBufferByIndex, \
      (axclrtEngineIO io, uint32_t index, void **device_ptr, uint64_t *size)) \
    X(axclError, axclrtEngineGetOutputBufferByIndex, \
      (axclrtEngineIO io, uint32_t index, void **device_ptr, uint64_t *size))

/* What the next generation's runtime has in place of axclrtGetDeviceList, axclrtGetDeviceProperties and
 * axclrtRebootDevice, which it lacks: devices are counted from 0 there. */
#define AXCL_NEXT_GENERATION(X) \
    X(axclError, axclrtGetDeviceInfo, (int32_t device, axclrtDevAttr attribute, uint64_t *value)) \
    X(axclError, axclrtGetMemInfo, (axclrtMemAttr memory, size_t *free_bytes, size_t *total_bytes)) \
    X(axclError, axclrtQueryDeviceStatus, (int32_t device, axclrtDeviceStatus *status))

/* ---- control interface of the emulated runtime: not in a real one; its presence says "emulated" --- */

#define AXEMU_OPTIONAL(X) \
    X(const char *, axemu_version, (void)) \
    X(int, axemu_set, (const char *key, const char *value)) \
    X(int, axemu_report, (char *buffer, size_t size)) \
    X(int, axemu_reset_counters, (void)) \
    X(const char *, axemu_last_error, (void))

#endif
