/* SPDX-License-Identifier: Apache-2.0 */
/* How many finished samples a second several processes can copy into shared memory: the limit of
 * any input pipeline that hands samples from one process to another.
 *
 *   bench_memcpy [PROCESSES [SECONDS [SAMPLE_BYTES]]]        default 2 processes, 5 s, 150,528
 *
 * Each process copies from POOL private samples in turn into the next place of a shared memfd of
 * PLACES samples, as large as the ring of a run with batches of 50 and the default depth. Both are
 * larger than the second-level caches. Nobody reads the samples. */
#include "bench/parallel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    POOL = 256,
    PLACES = 200,
    SAMPLE_BYTES = 224 * 224 * 3
};

struct memory {
    size_t sample_bytes;
    uint8_t *places; /* shared */
    uint8_t *pool;   /* private: made after the fork */
    uint64_t turn;
};

static void *open_pool(void *shared) {
    struct memory *memory = shared;
    memory->pool = malloc(POOL * memory->sample_bytes);
    if (memory->pool != NULL) {
        memset(memory->pool, 0x5a, POOL * memory->sample_bytes);
    }
    return memory->pool == NULL ? NULL : memory;
}

static int copy_sample(void *own, uint64_t number) {
    struct memory *memory = own;
    memcpy(memory->places + (number % PLACES) * memory->sample_bytes,
           memory->pool + (memory->turn++ % POOL) * memory->sample_bytes, memory->sample_bytes);
    return 0;
}

int main(int argc, char **argv) {
    uint32_t processes = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 2;
    double seconds = argc > 2 ? strtod(argv[2], NULL) : 5.0;
    struct memory memory = {.sample_bytes = argc > 3 ? strtoul(argv[3], NULL, 10) : SAMPLE_BYTES};
    if (argc > 4 || memory.sample_bytes < 1 || memory.sample_bytes > (1u << 24)) {
        fprintf(stderr, "usage: bench_memcpy [PROCESSES [SECONDS [SAMPLE_BYTES]]]\n");
        return 2;
    }
    size_t bytes = PLACES * memory.sample_bytes;
    int fd = memfd_create("bench", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0) {
        fprintf(stderr, "bench_memcpy: no shared memory\n");
        return 1;
    }
    memory.places = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory.places == MAP_FAILED) {
        fprintf(stderr, "bench_memcpy: no shared memory\n");
        return 1;
    }
    const struct bench_work work = {
        .open = open_pool, .sample = copy_sample, .shared = &memory, .warmup = 2 * POOL};
    struct bench_total total;
    if (bench_parallel(&work, processes, seconds, &total) < 0) {
        return 1;
    }
    bench_print(&total);
    return 0;
}
