/* Every function the runtime exports, in lists: axcl_abi.h names those a decode core uses, EMU_MORE the others that
 * work, EMU_REFUSED those that only return "unsupported". Together they are the vendor's export list; beside it stands
 * what the next generation has (emu_enter knows who has what). */
#ifndef AXPRESS_EMU_FUNCTIONS_H
#define AXPRESS_EMU_FUNCTIONS_H

#include "../../axcl_abi.h"

/* Implemented, not needed by our core: X(return type, name, (arguments)). */
#define EMU_MORE(X)                                                                                                    \
    X(axclError, axclSetLogLevel, (int32_t level))                                                                     \
    X(void, axclAppLog, (int32_t level, const char *func, const char *file, uint32_t line, const char *fmt, ...))      \
    X(void, axclrtLog, (void))                                                                                         \
    X(axclError, axclrtMemcmpAsync, (const void *device_a, const void *device_b, size_t count, axclrtStream stream))   \
    X(axclError, axclrtEngineGetUsageFromMem,                                                                          \
      (const void *device_ptr, uint64_t size, int64_t *system_bytes, int64_t *cmm_bytes))                              \
    X(axclError, axclrtEngineGetModelTypeFromMem,                                                                      \
      (const void *device_ptr, uint64_t size, axclrtEngineModelKind *kind))                                            \
    X(axclError, axclrtEngineSetDynamicBatchSize, (axclrtEngineIO io, uint32_t batch_size))                            \
    X(axclError, axclrtEngineSetContextAffinity, (uint64_t model, uint64_t context, axclrtEngineSet set))              \
    X(axclError, axclrtEngineGetContextAffinity, (uint64_t model, uint64_t context, axclrtEngineSet * set))            \
    X(axclError, axclrtEngineGetInputDataLayout,                                                                       \
      (axclrtEngineIOInfo info, uint32_t index, axclrtEngineDataLayout * layout))                                      \
    X(axclError, axclrtEngineGetOutputDataLayout,                                                                      \
      (axclrtEngineIOInfo info, uint32_t index, axclrtEngineDataLayout * layout))                                      \
    X(axclError, axclrtEngineSetInputBufferByName,                                                                     \
      (axclrtEngineIO io, const char *name, const void *device_ptr, uint64_t size))                                    \
    X(axclError, axclrtEngineSetOutputBufferByName,                                                                    \
      (axclrtEngineIO io, const char *name, const void *device_ptr, uint64_t size))                                    \
    X(axclError, axclrtEngineGetInputBufferByName,                                                                     \
      (axclrtEngineIO io, const char *name, void **device_ptr, uint64_t *size))                                        \
    X(axclError, axclrtEngineGetOutputBufferByName,                                                                    \
      (axclrtEngineIO io, const char *name, void **device_ptr, uint64_t *size))                                        \
    X(const char *, axclrtConfigGetLogPath, (void))                                                                    \
    X(int32_t, axclrtConfigGetLogLevel, (void))                                                                        \
    X(uint32_t, axclrtConfigGetDmaBufSize, (void))                                                                     \
    X(axclrtStream, axclrtGetDefaultStream, (void))

/* Exported so that foreign programs link; each returns "unsupported" of its sub module: X(name, sub module). */
#define EMU_REFUSED(X)                                                                                                 \
    X(axclrtConfigLoad, AXCL_SUB_CONFIG)                                                                               \
    X(axclrtConfigUnLoad, AXCL_SUB_CONFIG)                                                                             \
    X(axclrtControlChangePCIeSubId, AXCL_SUB_SYSCTRL)                                                                  \
    X(axclrtControlCreateContext, AXCL_SUB_SYSCTRL)                                                                    \
    X(axclrtControlCreateEvent, AXCL_SUB_SYSCTRL)                                                                      \
    X(axclrtControlCreateStream, AXCL_SUB_SYSCTRL)                                                                     \
    X(axclrtControlDestroyContext, AXCL_SUB_SYSCTRL)                                                                   \
    X(axclrtControlDestroyEvent, AXCL_SUB_SYSCTRL)                                                                     \
    X(axclrtControlDestroyStream, AXCL_SUB_SYSCTRL)                                                                    \
    X(axclrtControlExecuteShellCmd, AXCL_SUB_SYSCTRL)                                                                  \
    X(axclrtControlRecordEvent, AXCL_SUB_SYSCTRL)                                                                      \
    X(axclrtControlStreamWaitEvent, AXCL_SUB_SYSCTRL)                                                                  \
    X(axclrtControlSyncStream, AXCL_SUB_SYSCTRL)                                                                       \
    X(axclrtCreateP2PUnit, AXCL_SUB_P2P)                                                                               \
    X(axclrtDestoryP2PUnit, AXCL_SUB_P2P)                                                                              \
    X(axclrtEngineP2pBwTest, AXCL_SUB_P2P)                                                                             \
    X(axclrtP2PTriggerTest, AXCL_SUB_P2P)                                                                              \
    X(axclrtCreateTask, AXCL_SUB_TASK)                                                                                 \
    X(axclrtDestoryTask, AXCL_SUB_TASK)                                                                                \
    X(axclrtGetTaskResponse, AXCL_SUB_TASK)                                                                            \
    X(axclrtWaitTaskFinish, AXCL_SUB_TASK)                                                                             \
    X(axclrtExecWorker, AXCL_SUB_USER_WORK)                                                                            \
    X(axclrtKillWorker, AXCL_SUB_USER_WORK)                                                                            \
    X(axclrtWorkerRecv, AXCL_SUB_USER_WORK)                                                                            \
    X(axclrtWorkerSend, AXCL_SUB_USER_WORK)                                                                            \
    X(axclrtTransferFile, AXCL_SUB_USER_WORK)                                                                          \
    X(axclrtGetContextId, AXCL_SUB_CONTEXT)                                                                            \
    X(axclrtGetEnviromentByStream, AXCL_SUB_STREAM)                                                                    \
    X(axclrtGetDeviceBusInfo, AXCL_SUB_DEVICE)                                                                         \
    X(axclrtGetDevicePidInfo, AXCL_SUB_DEVICE)                                                                         \
    X(axclrtLatencyLoopback, AXCL_SUB_LATENCY)

#define EMU_FN3(type, name, args) EMU_FN_##name,
#define EMU_FN2(name, sub) EMU_FN_##name,
typedef enum emu_fn {
    AXCL_REQUIRED(EMU_FN3) AXCL_OPTIONAL(EMU_FN3) AXCL_NEXT_GENERATION(EMU_FN3) EMU_MORE(EMU_FN3) EMU_REFUSED(EMU_FN2)
    EMU_NUM_FUNCTIONS
} emu_fn;

const char *emu_fn_name(emu_fn fn);
int emu_fn_find(const char *name); /* -1: no such function */

#endif
