/* The names of the runtime's functions, as faults and the report spell them. */
#include "functions.h"

#include <string.h>

#define NAME3(type, name, args) #name,
#define NAME2(name, sub) #name,
static const char *const names[] = {
    AXCL_REQUIRED(NAME3) AXCL_OPTIONAL(NAME3) AXCL_NEXT_GENERATION(NAME3) EMU_MORE(NAME3) EMU_REFUSED(NAME2)};

const char *emu_fn_name(emu_fn fn) { return names[fn]; }

int emu_fn_find(const char *name)
{
    for (int i = 0; i < EMU_NUM_FUNCTIONS; i++)
        if (!strcmp(names[i], name)) return i;
    return -1;
}
