/* Exported names that nothing here stands behind, so that foreign programs link: they return "unsupported". */
#include <stddef.h>

#include "../machine/counters.h"
#include "../machine/errors.h"
#include "exports.h"

#define REFUSED(name, sub)                                                                                             \
    EMU_API axclError name(void);                                                                                      \
    axclError name(void)                                                                                               \
    {                                                                                                                  \
        emu_count_call(EMU_FN_##name);                                                                                 \
        return emu_refuse(AXCL_ERROR(sub, AXCL_ID_UNSUPPORTED), #name " is not part of the emulated runtime");         \
    }
EMU_REFUSED(REFUSED)

/* Logging goes nowhere; the configuration is the built-in one; there is no default stream. */
axclError axclSetLogLevel(int32_t level)
{
    (void)level;
    emu_count_call(EMU_FN_axclSetLogLevel);
    return 0;
}

void axclAppLog(int32_t level, const char *func, const char *file, uint32_t line, const char *fmt, ...)
{
    (void)level, (void)func, (void)file, (void)line, (void)fmt;
    emu_count_call(EMU_FN_axclAppLog);
}

void axclrtLog(void) { emu_count_call(EMU_FN_axclrtLog); }

const char *axclrtConfigGetLogPath(void)
{
    emu_count_call(EMU_FN_axclrtConfigGetLogPath);
    return "";
}

int32_t axclrtConfigGetLogLevel(void)
{
    emu_count_call(EMU_FN_axclrtConfigGetLogLevel);
    return 0;
}

uint32_t axclrtConfigGetDmaBufSize(void)
{
    emu_count_call(EMU_FN_axclrtConfigGetDmaBufSize);
    return 0;
}

axclrtStream axclrtGetDefaultStream(void)
{
    emu_count_call(EMU_FN_axclrtGetDefaultStream);
    return NULL;
}
