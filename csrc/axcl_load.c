#include "axcl_load.h"

#include <dirent.h>
#include <dlfcn.h>
#include <limits.h>
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
                                          AXCL_NEXT_GENERATION(AXCL_OPTIONAL_ROW) AXEMU_OPTIONAL(AXCL_OPTIONAL_ROW)};

/* Opens the vendor's other libraries beside `path`, so that the runtime finds them although their directory is not on
 * the loader's path (the vendor's profile script puts it there, and services do not run that). Returns how many. */
static int open_siblings(const char *path) {
    char folder[PATH_MAX], file[PATH_MAX + 256];
    const char *slash = strrchr(path, '/');
    if (slash == NULL || (size_t)(slash - path) >= sizeof folder) return 0;
    memcpy(folder, path, (size_t)(slash - path));
    folder[slash - path] = '\0';
    DIR *entries = opendir(folder);
    int opened = 0;
    for (struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;) {
        if (strncmp(entry->d_name, "libaxcl_", 8) != 0 || strstr(entry->d_name, ".so") == NULL) continue;
        if (strncmp(entry->d_name, "libaxcl_rt.", 11) == 0) continue;
        snprintf(file, sizeof file, "%s/%s", folder, entry->d_name);
        if (dlopen(file, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD) != NULL) continue; /* counted before */
        if (dlopen(file, RTLD_NOW | RTLD_GLOBAL) != NULL) opened++;
    }
    if (entries != NULL) closedir(entries);
    return opened;
}

/* The library, or NULL with a sentence. */
static void *open_library(const char *path, char *error, size_t error_size) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library != NULL) return library;
    const char *text = dlerror();
    char why[256];
    snprintf(why, sizeof why, "%s", text != NULL ? text : "unknown reason");
    while (library == NULL && open_siblings(path) > 0) /* they need each other, in an order that nobody tells */
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        snprintf(error, error_size,
            "cannot open the AXCL runtime %s: %s. Where it is another library that is missing: install the vendor's "
            "driver package whole, or name its directory in a file of /etc/ld.so.conf.d and run ldconfig", path, why);
    return library;
}

int axcl_api_open(axcl_api *api, const char *path, char *error, size_t error_size) {
    memset(api, 0, sizeof *api);
    void *library = open_library(path, error, error_size);
    if (library == NULL) return -1;
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *address = dlsym(library, symbols[i].name);
        if (address == NULL && symbols[i].required) {
            snprintf(error, error_size,
                "%s does not export %s: not an AXCL runtime, or one of a generation that axpress does not know", path,
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
