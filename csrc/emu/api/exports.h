/* The runtime's exports, declared: machine/functions.h lists them. */
#ifndef AXPRESS_EMU_EXPORTS_H
#define AXPRESS_EMU_EXPORTS_H

#include "../machine/functions.h"

#define EMU_VERSION "axpress emulated AXCL runtime 0.1"

#define EMU_API __attribute__((visibility("default")))
#define EMU_DECLARE(type, name, args) EMU_API type name args;
AXCL_REQUIRED(EMU_DECLARE)
AXCL_OPTIONAL(EMU_DECLARE)
AXCL_NEXT_GENERATION(EMU_DECLARE)
EMU_MORE(EMU_DECLARE)
AXEMU_OPTIONAL(EMU_DECLARE)

#endif
