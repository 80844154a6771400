/* The AXCL runtime, real or emulated, resolved with dlopen and dlsym into one table of functions. */
#ifndef AXPRESS_AXCL_LOAD_H
#define AXPRESS_AXCL_LOAD_H

#include "axcl_abi.h"

typedef struct axcl_api {
    void *library; /* dlopen handle, or NULL */
#define AXCL_MEMBER(ret, name, args) ret(*name) args;
    AXCL_REQUIRED(AXCL_MEMBER)
    AXCL_OPTIONAL(AXCL_MEMBER)
    AXCL_NEXT_GENERATION(AXCL_MEMBER)
    AXEMU_OPTIONAL(AXCL_MEMBER)
#undef AXCL_MEMBER
} axcl_api;

/* Opens `path` and fills `api`; optional functions that are missing become NULL.
 * Returns 0, or -1 with one sentence in `error`: the library does not open, or lacks a required function. */
int axcl_api_open(axcl_api *api, const char *path, char *error, size_t error_size);

#endif
