"""The AXCL runtime's functions as Cython sees them, and the card that owns device, context and stream."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "axcl_load.h" nogil:
    ctypedef int32_t axclError
    ctypedef void *axclrtContext
    ctypedef void *axclrtStream
    ctypedef void *axclrtEngineIOInfo
    ctypedef void *axclrtEngineIO

    ctypedef struct axclrtDeviceList:
        uint32_t num
        int32_t devices[256]

    ctypedef struct axclrtDeviceProperties:
        char swVersion[64]
        uint64_t uid
        uint32_t pciDomain
        uint32_t pciBusID
        uint32_t pciDeviceID
        int32_t temperature
        uint32_t totalMemSize
        uint32_t freeMemSize
        uint32_t totalCmmSize
        uint32_t freeCmmSize
        uint32_t cpuLoading
        uint32_t npuLoading

    ctypedef struct axclrtEngineIODims:
        int32_t dimCount
        int32_t dims[32]

    ctypedef enum axclrtMemAttr:
        AXCL_MEMORY_CMM
        AXCL_MEMORY_SYSTEM
    ctypedef enum axclrtDevAttr:
        AXCL_DEVICE_UID
    ctypedef enum axclrtDeviceStatus:
        AXCL_DEVICE_NORMAL
    ctypedef enum axclrtMemMallocPolicy:
        AXCL_MEM_NORMAL_ONLY
    ctypedef enum axclrtMemcpyKind:
        AXCL_COPY_HOST_TO_DEVICE
        AXCL_COPY_DEVICE_TO_HOST
        AXCL_COPY_DEVICE_TO_DEVICE
    ctypedef enum axclrtEngineVNpuKind:
        AXCL_VNPU_DISABLED
    ctypedef enum axclrtEngineDataType:
        AXCL_TYPE_UINT32
        AXCL_TYPE_INT32
        AXCL_TYPE_BF16
        AXCL_TYPE_FP32

    axclError AXCL_ERR_STREAM_SYNC_TIMEOUT
    axclError AXCL_ERR_NO_DRIVER

    ctypedef struct axcl_api:
        void *library
        axclError (*axclInit)(const char *) noexcept nogil
        axclError (*axclFinalize)() noexcept nogil
        axclError (*axclrtGetVersion)(int32_t *, int32_t *, int32_t *) noexcept nogil
        const char *(*axclrtGetSocName)() noexcept nogil
        axclError (*axclrtGetDeviceList)(axclrtDeviceList *) noexcept nogil
        axclError (*axclrtGetDeviceCount)(uint32_t *) noexcept nogil
        axclError (*axclrtSetDevice)(int32_t) noexcept nogil
        axclError (*axclrtResetDevice)(int32_t) noexcept nogil
        axclError (*axclrtRebootDevice)(int32_t) noexcept nogil
        axclError (*axclrtGetDeviceProperties)(int32_t, axclrtDeviceProperties *) noexcept nogil
        axclError (*axclrtCreateContext)(axclrtContext *, int32_t) noexcept nogil
        axclError (*axclrtDestroyContext)(axclrtContext) noexcept nogil
        axclError (*axclrtSetCurrentContext)(axclrtContext) noexcept nogil
        axclError (*axclrtMalloc)(void **, size_t, axclrtMemMallocPolicy) noexcept nogil
        axclError (*axclrtFree)(void *) noexcept nogil
        axclError (*axclrtMallocHost)(void **, size_t) noexcept nogil
        axclError (*axclrtFreeHost)(void *) noexcept nogil
        axclError (*axclrtMemset)(void *, uint8_t, size_t) noexcept nogil
        axclError (*axclrtMemcpy)(void *, const void *, size_t, axclrtMemcpyKind) noexcept nogil
        axclError (*axclrtMemcpyAsync)(void *, const void *, size_t, axclrtMemcpyKind, axclrtStream) noexcept nogil
        axclError (*axclrtCreateStream)(axclrtStream *) noexcept nogil
        axclError (*axclrtDestroyStream)(axclrtStream) noexcept nogil
        axclError (*axclrtDestroyStreamForce)(axclrtStream) noexcept nogil
        axclError (*axclrtSynchronizeStreamWithTimeout)(axclrtStream, int32_t) noexcept nogil
        axclError (*axclrtEngineInit)(axclrtEngineVNpuKind) noexcept nogil
        axclError (*axclrtEngineFinalize)() noexcept nogil
        axclError (*axclrtEngineLoadFromFile)(const char *, uint64_t *) noexcept nogil
        axclError (*axclrtEngineUnload)(uint64_t) noexcept nogil
        axclError (*axclrtEngineCreateContext)(uint64_t, uint64_t *) noexcept nogil
        axclError (*axclrtEngineGetIOInfo)(uint64_t, axclrtEngineIOInfo *) noexcept nogil
        axclError (*axclrtEngineDestroyIOInfo)(axclrtEngineIOInfo) noexcept nogil
        axclError (*axclrtEngineGetShapeGroupsCount)(axclrtEngineIOInfo, int32_t *) noexcept nogil
        uint32_t (*axclrtEngineGetNumInputs)(axclrtEngineIOInfo) noexcept nogil
        uint32_t (*axclrtEngineGetNumOutputs)(axclrtEngineIOInfo) noexcept nogil
        uint64_t (*axclrtEngineGetInputSizeByIndex)(axclrtEngineIOInfo, uint32_t, uint32_t) noexcept nogil
        uint64_t (*axclrtEngineGetOutputSizeByIndex)(axclrtEngineIOInfo, uint32_t, uint32_t) noexcept nogil
        axclError (*axclrtEngineGetInputDims)(
            axclrtEngineIOInfo, uint32_t, uint32_t, axclrtEngineIODims *) noexcept nogil
        axclError (*axclrtEngineGetOutputDims)(
            axclrtEngineIOInfo, uint32_t, uint32_t, axclrtEngineIODims *) noexcept nogil
        const char *(*axclrtEngineGetInputNameByIndex)(axclrtEngineIOInfo, uint32_t) noexcept nogil
        const char *(*axclrtEngineGetOutputNameByIndex)(axclrtEngineIOInfo, uint32_t) noexcept nogil
        axclError (*axclrtEngineGetInputDataType)(axclrtEngineIOInfo, uint32_t, axclrtEngineDataType *) noexcept nogil
        axclError (*axclrtEngineGetOutputDataType)(axclrtEngineIOInfo, uint32_t, axclrtEngineDataType *) noexcept nogil
        axclError (*axclrtEngineCreateIO)(axclrtEngineIOInfo, axclrtEngineIO *) noexcept nogil
        axclError (*axclrtEngineDestroyIO)(axclrtEngineIO) noexcept nogil
        axclError (*axclrtEngineSetInputBufferByIndex)(axclrtEngineIO, uint32_t, const void *, uint64_t) noexcept nogil
        axclError (*axclrtEngineSetOutputBufferByIndex)(axclrtEngineIO, uint32_t, const void *, uint64_t) noexcept nogil
        axclError (*axclrtEngineExecute)(uint64_t, uint64_t, uint32_t, axclrtEngineIO) noexcept nogil
        axclError (*axclrtEngineExecuteAsync)(uint64_t, uint64_t, uint32_t, axclrtEngineIO, axclrtStream) noexcept nogil
        axclError (*axclrtGetDeviceInfo)(int32_t, axclrtDevAttr, uint64_t *) noexcept nogil
        axclError (*axclrtGetMemInfo)(axclrtMemAttr, size_t *, size_t *) noexcept nogil
        axclError (*axclrtQueryDeviceStatus)(int32_t, axclrtDeviceStatus *) noexcept nogil
        const char *(*axemu_version)() noexcept nogil
        int (*axemu_set)(const char *, const char *) noexcept nogil
        const char *(*axemu_last_error)() noexcept nogil

    int axcl_api_open(axcl_api *, const char *, char *, size_t)


cdef class Card:
    cdef object __weakref__
    cdef axcl_api api
    cdef axclrtContext context
    cdef axclrtStream stream
    cdef object buffers          # WeakSet of open buffers
    cdef object models           # list of loaded models, in order of loading
    cdef bint engine_ready
    cdef bint device_set
    cdef bint closing
    cdef str close_error
    cdef readonly str library
    cdef readonly int device
    cdef readonly bint emulated
    cdef readonly bint has_async
    cdef readonly bint closed

    cdef int check(self, str call, axclError code) except -1
    cdef int require_open(self) except -1
    cdef int free(self, buffer, void *memory, bint pinned) except -1
    cdef void give_back(self, void *memory, bint pinned) noexcept
