/* SPDX-License-Identifier: Apache-2.0 */
/* Opening: choose the path, make it, lock run.lock (an open-file-description lock: it dies with us,
 * however we die), write who holds it.
 * Recording: save what defines the run, open the two line files.
 *
 * Between the two the trainer is asked whether it can go on with what lies in the directory: a
 * start that is refused must leave the run there as it was, and nothing where there was none. */
#include "coordinator/rundir.h"

#include "base/err.h"
#include "base/output.h"
#include "coordinator/dataset_classes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Room for a configured path and what is put behind it. */
#define RUN_PATH_MAX (NNC_PATH_MAX + 64)
/* Room that the run's path leaves for the longest name in it, with '/' and end. */
#define FILE_NAME_BYTES 32

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

/* errno is why the file or directory could not be made. */
static int fail_output(const char *what, const char *path) {
    return nnc_fail(-NNC_E_CHECKPOINT, "%s %s cannot be written: %s; give another --output-dir",
                    what, path, strerror(errno));
}

/* mkdir -p; *ret_made: how many levels were not there before. */
static int make_directories(const char *path, unsigned *ret_made) {
    char partial[RUN_PATH_MAX];
    *ret_made = 0;
    snprintf(partial, sizeof(partial), "%s", path);
    for (char *slash = strchr(partial + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        bool is_made = mkdir(partial, 0777) == 0;
        if (!is_made && errno != EEXIST) {
            return fail_output("directory", partial);
        }
        *ret_made += is_made;
        *slash = '/';
    }
    bool is_made = mkdir(partial, 0700) == 0;
    if (!is_made && errno != EEXIST) {
        return fail_output("directory", partial);
    }
    *ret_made += is_made;
    return 0;
}

/* Remove what opening has made. A directory that somebody has put something into stays. */
static void take_back(const struct nnc_rundir *rundir) {
    char path[2 * NNC_PATH_MAX];
    snprintf(path, sizeof(path), "%s/run.lock", rundir->path);
    unlink(path);
    for (unsigned level = 0; level < rundir->made; level++) {
        char *slash = strrchr(path, '/');
        *slash = '\0';
        if (slash == path || rmdir(path) < 0) {
            return;
        }
    }
}

static int take_lock(struct nnc_rundir *rundir) {
    char path[2 * NNC_PATH_MAX];
    snprintf(path, sizeof(path), "%s/run.lock", rundir->path);
    rundir->lock_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool is_new = rundir->lock_fd >= 0;
    if (!is_new) {
        rundir->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    }
    if (rundir->lock_fd < 0) {
        return fail_output("file", path);
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
        return fail_output("file", path);
    }
    rundir->takes_back = is_new;
    return 0;
}

/* Every file that says what the run is, whole or not there. */
static int save_file(const struct nnc_rundir *rundir, const char *name, const void *data,
                     size_t bytes) {
    char path[NNC_PATH_MAX + FILE_NAME_BYTES];
    snprintf(path, sizeof(path), "%s/%s", rundir->path, name);
    return nnc_output_save(nnc_vfs_real(), path, data, bytes) < 0 ? -NNC_E_CHECKPOINT : 0;
}

static int save_config(const struct nnc_rundir *rundir, const struct nnc_config *config) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *memory = open_memstream(&text, &bytes);
    if (memory == NULL) {
        return nnc_fail(-ENOMEM, "no memory for config.yaml");
    }
    int result = nnc_config_dump_yaml(config, memory);
    if (fclose(memory) != 0 && result >= 0) {
        result = nnc_fail(-ENOMEM, "no memory for config.yaml");
    }
    result = result < 0 ? result : save_file(rundir, "config.yaml", text, bytes);
    free(text);
    return result;
}

/* Read the model text whole before it is written: it may be the run's own model.nn. */
static int save_model(const struct nnc_rundir *rundir, const char *model_path) {
    char *text = NULL, buffer[4096];
    size_t bytes = 0, got;
    FILE *in = fopen(model_path, "re");
    if (in == NULL) {
        return nnc_fail_errno("open model %s", model_path);
    }
    FILE *memory = open_memstream(&text, &bytes);
    while (memory != NULL && (got = fread(buffer, 1, sizeof(buffer), in)) > 0) {
        fwrite(buffer, 1, got, memory); /* a failure shows in fclose */
    }
    int result = ferror(in) ? nnc_fail(-EIO, "read model %s", model_path) : 0;
    fclose(in);
    if (memory == NULL || fclose(memory) != 0) {
        result = nnc_fail(-ENOMEM, "no memory for model.nn");
    }
    result = result < 0 ? result : save_file(rundir, "model.nn", text, bytes);
    free(text);
    return result;
}

static int save_classes(const struct nnc_rundir *rundir, const struct nnc_index *index) {
    char *text = NULL, line[NNC_CLASS_NAME_MAX + 1];
    size_t bytes = 0;
    FILE *memory = open_memstream(&text, &bytes);
    if (memory == NULL) {
        return nnc_fail(-ENOMEM, "no memory for classes.txt");
    }
    for (uint64_t i = 0; i < index->header->classes; i++) {
        nnc_classes_line(nnc_index_class_name(index, i), line);
        fprintf(memory, "%s\n", line);
    }
    int result = fclose(memory) == 0 ? save_file(rundir, "classes.txt", text, bytes)
                                     : nnc_fail(-ENOMEM, "no memory for classes.txt");
    free(text);
    return result;
}

static int open_lines(const struct nnc_rundir *rundir, const char *name, FILE **ret_file) {
    char path[2 * NNC_PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", rundir->path, name);
    *ret_file = fopen(path, "ae");
    if (*ret_file == NULL) {
        return nnc_fail(-NNC_E_CHECKPOINT, "%s cannot be written: %s", path, strerror(errno));
    }
    setvbuf(*ret_file, NULL, _IOLBF, 0);
    return 0;
}

/* Whether a name is that of a checkpoint, ckpt-NUMBER. */
static int is_checkpoint_name(const struct dirent *entry) {
    return strncmp(entry->d_name, "ckpt-", 5) == 0;
}

int nnc_rundir_check_resume(const char *resume) {
    if (resume[0] == '\0' || strcmp(resume, "auto") == 0 || is_inside(resume, "MANIFEST")) {
        return 0;
    }
    struct dirent **entries = NULL;
    int count = scandir(resume, &entries, is_checkpoint_name, NULL);
    if (count > 0) {
        for (int i = 0; i < count; i++) {
            free(entries[i]);
        }
        free(entries);
        return 0;
    }
    int reason = count < 0 ? errno : 0;
    free(entries);
    return nnc_fail(-NNC_E_USAGE,
                    "--resume %s: there is no checkpoint%s%s; give the directory of a run, or one "
                    "of its ckpt-* directories",
                    resume, reason != 0 ? ": " : "", reason != 0 ? strerror(reason) : "");
}

int nnc_rundir_open(const struct nnc_config *config, struct nnc_rundir *ret_rundir) {
    struct nnc_rundir rundir = {.lock_fd = -1};
    char chosen[RUN_PATH_MAX];
    int result = nnc_rundir_check_resume(config->resume);
    if (result < 0) {
        return result;
    }
    choose_path(config, chosen);
    result = make_directories(chosen, &rundir.made);
    if (result < 0) {
        return result;
    }
    char resolved[PATH_MAX];
    if (realpath(chosen, resolved) == NULL ||
        strlen(resolved) + FILE_NAME_BYTES > sizeof(rundir.path)) {
        return nnc_fail(-ENAMETOOLONG, "run directory %s: path too long or gone", chosen);
    }
    memcpy(rundir.path, resolved, strlen(resolved) + 1);
    result = take_lock(&rundir);
    if (result < 0) {
        nnc_rundir_close(&rundir);
        return result;
    }
    *ret_rundir = rundir;
    return 0;
}

int nnc_rundir_record(struct nnc_rundir *rundir, const struct nnc_config *config,
                      const char *model_path, const struct nnc_index *classes) {
    rundir->takes_back = false;
    int result = save_config(rundir, config);
    result = result < 0 ? result : save_model(rundir, model_path);
    result = result < 0 ? result : save_classes(rundir, classes);
    result = result < 0 ? result : open_lines(rundir, "metrics.jsonl", &rundir->metrics);
    return result < 0 ? result : open_lines(rundir, "bad-samples.jsonl", &rundir->bad);
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
        if (rundir->takes_back) {
            take_back(rundir);
            rundir->takes_back = false;
        }
        close(rundir->lock_fd);
        rundir->lock_fd = -1;
    }
}
