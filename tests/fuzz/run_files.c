/* SPDX-License-Identifier: Apache-2.0 */
/* Run a fuzz target over every file of a folder, where there is no libFuzzer: what once broke stays
 * tried. Speaks TAP; a crash ends it early, which counts as a failure. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FILE_BYTES_MAX (2u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void run_file(const char *folder, const char *name, int number) {
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    uint8_t *data = malloc(FILE_BYTES_MAX);
    FILE *file = fopen(path, "rbe");
    size_t bytes = file != NULL && data != NULL ? fread(data, 1, FILE_BYTES_MAX, file) : 0;
    if (file != NULL) {
        fclose(file);
    }
    LLVMFuzzerTestOneInput(data, bytes);
    printf("%s %d - %s, %zu bytes\n", bytes > 0 ? "ok" : "not ok", number, name, bytes);
    free(data);
}

int main(int argc, char **argv) {
    struct dirent **entries = NULL;
    int count = argc == 2 ? scandir(argv[1], &entries, NULL, alphasort) : -1;
    if (count < 0) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    int run = 0;
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.') {
            run_file(argv[1], entries[i]->d_name, ++run);
        }
        free(entries[i]);
    }
    free(entries);
    printf("1..%d\n", run);
    return run > 0 ? 0 : 1;
}
