/* Refusals: an error value, and the sentence that says why. */
#ifndef AXPRESS_EMU_ERRORS_H
#define AXPRESS_EMU_ERRORS_H

#include "../../axcl_abi.h"

#define EMU_SENTENCE 512 /* bytes of a sentence, the end included */

/* Keeps the sentence for emu_last_error and returns code. */
axclError emu_refuse(axclError code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The sentence behind the last error of any thread; valid until this thread asks again. */
const char *emu_last_error(void);

#endif
