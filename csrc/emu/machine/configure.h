/* Settings from text. */
#ifndef AXPRESS_EMU_CONFIGURE_H
#define AXPRESS_EMU_CONFIGURE_H

/* Reads the environment, once. 0, or -1 after a wrong value (the sentence is in emu_last_error). */
int emu_settings_load(void);
/* One setting, key in any case, with AXPRESS_EMU_ before it or without. 0, or -1 with a sentence. */
int emu_settings_set(const char *key, const char *value);

#endif
