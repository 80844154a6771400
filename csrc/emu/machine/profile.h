/* Timing profiles: what each operation costs on the modelled card (modelled ns), and how much memory the card has. */
#ifndef AXPRESS_EMU_PROFILE_H
#define AXPRESS_EMU_PROFILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../axcl_abi.h"
#include "../arithmetic/model.h"

extern atomic_bool emu_paced;            /* a profile was chosen: time is modelled */
int emu_profile_set(const char *name);   /* 0, or -1 with a sentence */
const char *emu_profile_name(void);
int64_t emu_profile_cmm_mib(void);
int64_t emu_profile_idle_mib(void);

double emu_cost_execute(const emu_model *model, int group);
double emu_cost_copy(axclrtMemcpyKind kind, size_t n, bool pinned);
double emu_cost_load(uint64_t bytes); /* a model file of so many bytes */
double emu_cost_submit(void);
double emu_cost_sync(void);

#endif
