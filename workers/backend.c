/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of a backend, among those built in and plug-ins.
 *
 * A plug-in is opened with RTLD_NOW: a symbol that the installed libraries lack is found here, with
 * its name, and not in the middle of a training. */
#include "workers/backend.h"

#include "base/err.h"
#include "base/paths.h"
#include "ipc/setup.h"

#include <assert.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Names by enum nnc_device_backend; NULL: the best one. */
static const char *const names[] = {
    [NNC_BACKEND_AUTO] = NULL,
    [NNC_BACKEND_ONEDNN] = "onednn",
    [NNC_BACKEND_REFERENCE] = "reference",
    [NNC_BACKEND_CUDA] = "cuda",
};

int nnc_backend_find(int32_t kind, const struct nnc_backend_ops **ret_ops) {
    assert(kind >= 0 && (size_t)kind < sizeof(names) / sizeof(names[0]));
    if (kind == NNC_BACKEND_CUDA) {
        int code = nnc_backend_load(names[kind], ret_ops);
        return code < 0 ? nnc_fail_in(code, "no GPU can be used (`--gpus 0` trains on the CPU)")
                        : code;
    }
    for (size_t number = 0; nnc_backends[number]; number++) {
        if (!names[kind] || strcmp(names[kind], nnc_backends[number]->name) == 0) {
            *ret_ops = nnc_backends[number];
            return 0;
        }
    }
    return nnc_fail(-NNC_E_USAGE,
                    "this nncoord was built without the %s backend; install libdnnl-dev and build "
                    "again, or use --backend reference",
                    names[kind]);
}

int nnc_backend_load(const char *name, const struct nnc_backend_ops **ret_ops) {
    char directory[PATH_MAX];
    char path[PATH_MAX + 64];
    int code = nnc_path_programs(directory, sizeof(directory));
    if (code < 0) {
        return code;
    }
    snprintf(path, sizeof(path), "%s/nncoord_%s.so", directory, name);
    if (access(path, F_OK) != 0) {
        return nnc_fail(-NNC_E_USAGE, "this nncoord was built without its %s backend (%s)", name,
                        path);
    }
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        return nnc_fail(-NNC_E_USAGE, "%s", dlerror());
    }
    const struct nnc_backend_plugin *plugin = dlsym(handle, NNC_BACKEND_PLUGIN);
    if (plugin == NULL || strcmp(plugin->build_id(), nnc_build_id()) != 0) {
        dlclose(handle);
        return nnc_fail(-NNC_E_USAGE, "%s comes from another build of nncoord; install both alike",
                        path);
    }
    *ret_ops = plugin->ops;
    return 0;
}
