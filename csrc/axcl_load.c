#include "axcl_load.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    const char *name;
    size_t offset;
    int required;
} axcl_symbol;

#define AXCL_REQUIRED_ROW(ret, name, args) {#name, offsetof(axcl_api, name), 1},
#define AXCL_OPTIONAL_ROW(ret, name, args) {#name, offsetof(axcl_api, name), 0},

static const axcl_symbol symbols[] = {AXCL_REQUIRED(AXCL_REQUIRED_ROW) AXCL_OPTIONAL(AXCL_OPTIONAL_ROW)
                                          AXEMU_OPTIONAL(AXCL_OPTIONAL_ROW)};

int axcl_api_open(axcl_api *api, const char *path, char *error, size_t error_size) {
    memset(api, 0, sizeof *api);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *why = dlerror();
        snprintf(error, error_size, "cannot open the AXCL runtime %s: %s", path, why != NULL ? why : "unknown reason");
        return -1;
    }
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *address = dlsym(library, symbols[i].name);
        if (address == NULL && symbols[i].required) {
            snprintf(error, error_size, "%s does not export %s: not an AXCL runtime, or one too old for axpress", path,
                symbols[i].name);
            dlclose(library);
            memset(api, 0, sizeof *api);
            return -1;
        }
        memcpy((char *)api + symbols[i].offset, &address, sizeof address);
    }
    api->library = library;
    return 0;
}

void axcl_api_close(axcl_api *api) { memset(api, 0, sizeof *api); }
