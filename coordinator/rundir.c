/* SPDX-License-Identifier: Apache-2.0 */
/* Steps: choose the path, make it, lock run.lock (an open-file-description lock: it dies with us,
 * however we die), write who holds it, save what defines the run, open the two line files. */
#include "coordinator/rundir.h"

#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Room for a configured path and what is put behind it. */
#define RUN_PATH_MAX (NNC_PATH_MAX + 64)

static bool is_directory(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static bool is_inside(const char *directory, const char *name) {
    char path[2 * NNC_PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return access(path, F_OK) == 0;
}

/* Last path component of the model without its extension. */
static void model_stem(const char *model, char *ret_stem, size_t bytes) {
    const char *slash = strrchr(model, '/');
    snprintf(ret_stem, bytes, "%s", slash != NULL ? slash + 1 : model);
    char *dot = strrchr(ret_stem, '.');
    if (dot != NULL && dot != ret_stem) {
        *dot = '\0';
    }
}

static void choose_path(const struct nnc_config *config, char ret_path[RUN_PATH_MAX]) {
    if (config->output_dir[0] != '\0') {
        snprintf(ret_path, RUN_PATH_MAX, "%s", config->output_dir);
        return;
    }
    if (strcmp(config->resume, "auto") != 0 && is_directory(config->resume)) {
        bool checkpoint = is_inside(config->resume, "MANIFEST");
        snprintf(ret_path, RUN_PATH_MAX, "%s%s", config->resume, checkpoint ? "/.." : "");
        return;
    }
    char stem[NNC_PATH_MAX];
    char stamp[32];
    time_t now = time(NULL);
    struct tm parts;
    localtime_r(&now, &parts);
    strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &parts);
    model_stem(config->model, stem, sizeof(stem));
    snprintf(ret_path, RUN_PATH_MAX, "runs/%s-%s", stem, stamp);
    /* Two runs within one second get different folders. */
    for (int i = 2; is_directory(ret_path) && i < 100; i++) {
        snprintf(ret_path, RUN_PATH_MAX, "runs/%s-%s-%d", stem, stamp, i);
    }
}

static int make_directories(const char *path) {
    char partial[RUN_PATH_MAX];
    snprintf(partial, sizeof(partial), "%s", path);
    for (char *slash = strchr(partial + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(partial, 0777) < 0 && errno != EEXIST) {
            return nnc_fail_errno("make directory %s", partial);
        }
        *slash = '/';
    }
    if (mkdir(partial, 0700) < 0 && errno != EEXIST) {
        return nnc_fail_errno("make directory %s", partial);
    }
    return 0;
}

static int take_lock(struct nnc_rundir *rundir) {
    char path[2 * NNC_PATH_MAX];
    snprintf(path, sizeof(path), "%s/run.lock", rundir->path);
    rundir->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (rundir->lock_fd < 0) {
        return nnc_fail_errno("open %s", path);
    }
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char text[256] = "";
    if (fcntl(rundir->lock_fd, F_OFD_SETLK, &lock) < 0) {
        ssize_t bytes = pread(rundir->lock_fd, text, sizeof(text) - 1, 0);
        text[bytes > 0 ? bytes : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        return nnc_fail(-NNC_E_USAGE, "%s is in use by another run (%s); give another --output-dir",
                        rundir->path, text);
    }
    char host[65] = "";
    gethostname(host, sizeof(host) - 1);
    int length = snprintf(text, sizeof(text), "host %s pid %d\n", host, (int)getpid());
    if (ftruncate(rundir->lock_fd, 0) < 0 ||
        pwrite(rundir->lock_fd, text, (size_t)length, 0) != length) {
        return nnc_fail_errno("write %s", path);
    }
    return 0;
}

static int write_config(const struct nnc_rundir *rundir, const struct nnc_config *config) {
    char path[2 * NNC_PATH_MAX];
    snprintf(path, sizeof(path), "%s/config.yaml", rundir->path);
    FILE *file = fopen(path, "we");
    if (file == NULL) {
        return nnc_fail_errno("write %s", path);
    }
    int result = nnc_config_dump_yaml(config, file);
    if (fclose(file) != 0 && result >= 0) {
        result = nnc_fail_errno("write %s", path);
    }
    return result;
}

static int copy_model(const struct nnc_rundir *rundir, const char *model_path) {
    char path[2 * NNC_PATH_MAX];
    snprintf(path, sizeof(path), "%s/model.nn", rundir->path);
    FILE *in = fopen(model_path, "re");
    if (in == NULL) {
        return nnc_fail_errno("open model %s", model_path);
    }
    FILE *out = fopen(path, "we");
    int result = out == NULL ? nnc_fail_errno("write %s", path) : 0;
    char buffer[4096];
    size_t bytes;
    while (result >= 0 && (bytes = fread(buffer, 1, sizeof(buffer), in)) > 0) {
        if (fwrite(buffer, 1, bytes, out) != bytes) {
            result = nnc_fail_errno("write %s", path);
        }
    }
    fclose(in);
    if (out != NULL && fclose(out) != 0 && result >= 0) {
        result = nnc_fail_errno("write %s", path);
    }
    return result;
}

static int open_lines(const struct nnc_rundir *rundir, const char *name, FILE **ret_file) {
    char path[2 * NNC_PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", rundir->path, name);
    *ret_file = fopen(path, "ae");
    if (*ret_file == NULL) {
        return nnc_fail_errno("open %s", path);
    }
    setvbuf(*ret_file, NULL, _IOLBF, 0);
    return 0;
}

int nnc_rundir_open(const struct nnc_config *config, const char *model_path,
                    struct nnc_rundir *ret_rundir) {
    struct nnc_rundir rundir = {.lock_fd = -1};
    char chosen[RUN_PATH_MAX];
    choose_path(config, chosen);
    int result = make_directories(chosen);
    if (result < 0) {
        return result;
    }
    char resolved[PATH_MAX];
    if (realpath(chosen, resolved) == NULL || strlen(resolved) >= sizeof(rundir.path)) {
        return nnc_fail(-ENAMETOOLONG, "run directory %s: path too long or gone", chosen);
    }
    memcpy(rundir.path, resolved, strlen(resolved) + 1);
    result = take_lock(&rundir);
    result = result < 0 ? result : write_config(&rundir, config);
    result = result < 0 ? result : copy_model(&rundir, model_path);
    result = result < 0 ? result : open_lines(&rundir, "metrics.jsonl", &rundir.metrics);
    result = result < 0 ? result : open_lines(&rundir, "bad-samples.jsonl", &rundir.bad);
    if (result < 0) {
        nnc_rundir_close(&rundir);
        return result;
    }
    *ret_rundir = rundir;
    return 0;
}

void nnc_rundir_close(struct nnc_rundir *rundir) {
    FILE **files[] = {&rundir->metrics, &rundir->bad};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (*files[i] != NULL) {
            fclose(*files[i]);
            *files[i] = NULL;
        }
    }
    if (rundir->lock_fd >= 0) {
        close(rundir->lock_fd);
        rundir->lock_fd = -1;
    }
}
