/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory that the host cannot touch, and the list of pinned host memory.
 *
 *   one memfd    |zone|block|zone| free |zone|block|zone| ...
 *   mapped at    WINDOW         without any access: what cudaMalloc returns; a host dereference
 * faults and at       WINDOW + SHIFT readable, writable: what the stand-in's own work uses
 *
 * New memory is 0xff bytes: NaN in every floating-point type, -1 as an integer. Freed memory gets
 * another pattern, whole when it is small, at both ends when it is large: its pages go back to the
 * system. The search for room starts where the last one ended, so that a freed address is not
 * soon handed out again.
 *
 * Invariants: 1. blocks[] is sorted by address and disjoint, red zones included.
 *             2. The zones of a live block hold ZONE_BYTE. */
#include "tests/gpu/fakecuda/fakecuda.h"
#include "tests/gpu/fakecuda/testing.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WINDOW ((uintptr_t)0x300000000000)
#define SHIFT  ((uintptr_t)0x010000000000)

enum {
    BLOCKS_MAX = 16384,
    PINNED_MAX = 4096,
    NEW_BYTE = 0xff,
    FREED_BYTE = 0xfb,
    ZONE_BYTE = 0xcd,
    POISON_WHOLE = 1 << 20, /* bytes up to which freed memory is overwritten whole */
};

struct block {
    uintptr_t start;    /* behind the first zone */
    size_t bytes, room; /* asked for; rounded up: the second zone starts at once behind `bytes` */
    int device;
};

struct pinned {
    uintptr_t start;
    size_t bytes;
    bool allocated;
};

static struct block blocks[BLOCKS_MAX];
static size_t block_count, arena_bytes, used_bytes;
static uintptr_t cursor;
static struct pinned pinned[PINNED_MAX];
static size_t pinned_count;
static int arena_fd = -1;

static void open_arena(void) {
    arena_bytes = fake_settings()->memory;
    arena_fd = memfd_create("fakecuda-device", MFD_CLOEXEC);
    int flags = MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_NORESERVE;
    if (arena_fd < 0 || ftruncate(arena_fd, (off_t)arena_bytes) ||
        mmap((void *)WINDOW, arena_bytes, PROT_NONE, flags, arena_fd, 0) == MAP_FAILED ||
        mmap((void *)(WINDOW + SHIFT), arena_bytes, PROT_READ | PROT_WRITE, flags, arena_fd, 0) ==
            MAP_FAILED) {
        perror("fakecuda: device memory");
        abort();
    }
    cursor = WINDOW;
}

bool fake_memory_is_device(const void *memory) {
    return arena_fd >= 0 && (uintptr_t)memory - WINDOW < arena_bytes;
}

void *fake_translate(const void *memory) {
    return (void *)((uintptr_t)memory + (fake_memory_is_device(memory) ? SHIFT : 0));
}

void *fakecuda_peek(const void *memory) {
    return fake_translate(memory);
}

/* The number of blocks that start at or below the address. */
static size_t blocks_until(uintptr_t address) {
    size_t low = 0, high = block_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (blocks[middle].start <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct block *find_block(const void *memory) {
    size_t until = blocks_until((uintptr_t)memory);
    struct block *block = until ? &blocks[until - 1] : NULL;
    /* An empty range at the end belongs to it. */
    return block && (uintptr_t)memory - block->start <= block->bytes ? block : NULL;
}

/* The end of the last zone of block i, WINDOW for i = -1; the start of the first zone. */
static uintptr_t end_of(size_t count) {
    const struct block *block = count ? &blocks[count - 1] : NULL;
    return block ? block->start + block->room + FAKE_ALIGN : WINDOW;
}

static uintptr_t gap_end(size_t count) {
    return count < block_count ? blocks[count].start - FAKE_ALIGN : WINDOW + arena_bytes;
}

/* The first gap at or behind `from` that has room; 0: none. */
static uintptr_t find_gap(uintptr_t from, size_t bytes, size_t *ret_count) {
    for (size_t i = blocks_until(from); i <= block_count; i++) {
        uintptr_t start = end_of(i) > from ? end_of(i) : from;
        if (start < gap_end(i) && gap_end(i) - start >= bytes) {
            *ret_count = i;
            return start;
        }
    }
    return 0;
}

cudaError_t fake_memory_allocate(int device, size_t bytes, void **ret_memory) {
    if (arena_fd < 0) {
        open_arena();
    }
    if (bytes == 0) {
        *ret_memory = NULL;
        return cudaSuccess;
    }
    size_t room = (bytes + FAKE_ALIGN - 1) / FAKE_ALIGN * FAKE_ALIGN, place = 0;
    size_t whole = room + 2 * FAKE_ALIGN; /* the second zone: the rest of the room and more */
    if (bytes > arena_bytes || block_count == BLOCKS_MAX) {
        return cudaErrorMemoryAllocation;
    }
    uintptr_t start = find_gap(cursor, whole, &place);
    start = start ? start : find_gap(WINDOW, whole, &place);
    if (!start) {
        return cudaErrorMemoryAllocation;
    }
    memmove(&blocks[place + 1], &blocks[place], (block_count - place) * sizeof blocks[0]);
    block_count++;
    blocks[place] =
        (struct block){.start = start + FAKE_ALIGN, .bytes = bytes, .room = room, .device = device};
    cursor = start + whole;
    used_bytes += whole;
    unsigned char *alias = fake_translate((void *)start);
    memset(alias, ZONE_BYTE, FAKE_ALIGN);
    memset(alias + FAKE_ALIGN, NEW_BYTE, bytes);
    memset(alias + FAKE_ALIGN + bytes, ZONE_BYTE, room - bytes + FAKE_ALIGN);
    *ret_memory = (void *)blocks[place].start;
    return cudaSuccess;
}

/* The first byte of memory[0..bytes) that is not ZONE_BYTE, or -1. */
static int64_t first_written(const unsigned char *memory, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        if (memory[i] != ZONE_BYTE) {
            return (int64_t)i;
        }
    }
    return -1;
}

static void check_zones(const char *name, const struct block *block) {
    unsigned char *alias = fake_translate((void *)block->start);
    int64_t before = first_written(alias - FAKE_ALIGN, FAKE_ALIGN);
    size_t rest = block->room - block->bytes + FAKE_ALIGN;
    int64_t behind = first_written(alias + block->bytes, rest);
    if (before >= 0) {
        fake_violation("%s: byte %lld before block %p + %zu was written", name,
                       (long long)(FAKE_ALIGN - before), (void *)block->start, block->bytes);
    }
    if (behind >= 0) {
        fake_violation("%s: byte %lld behind block %p + %zu was written", name, (long long)behind,
                       (void *)block->start, block->bytes);
    }
    if (before >= 0 || behind >= 0) { /* said once */
        memset(alias - FAKE_ALIGN, ZONE_BYTE, FAKE_ALIGN);
        memset(alias + block->bytes, ZONE_BYTE, rest);
    }
}

void fake_memory_zones(const char *name, const void *memory) {
    const struct block *block = memory ? find_block(memory) : NULL;
    for (size_t i = 0; i < block_count && !memory; i++) {
        check_zones(name, &blocks[i]);
    }
    if (block) {
        check_zones(name, block);
    }
}

static void poison(const struct block *block) {
    unsigned char *alias = fake_translate((void *)block->start);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (block->bytes <= POISON_WHOLE) {
        memset(alias, FREED_BYTE, block->bytes);
        return;
    }
    size_t offset = block->start - WINDOW, first = (offset + page - 1) / page * page;
    size_t last = (offset + block->bytes) / page * page;
    fallocate(arena_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)first,
              (off_t)(last - first));
    memset(alias, FREED_BYTE, page);
    memset(alias + block->bytes - page, FREED_BYTE, page);
}

cudaError_t fake_memory_free(void *memory) {
    struct block *block = find_block(memory);
    if (!memory) {
        return cudaSuccess;
    }
    if (!block || block->start != (uintptr_t)memory) {
        fake_violation("cudaFree: %p is not a live block", memory);
        return cudaErrorInvalidValue;
    }
    struct fake_range all = {.memory = memory, .bytes = block->bytes, .write = true};
    const char *user = fake_order_conflict(fake_host_clock(), &all);
    if (user) {
        fake_violation("cudaFree: %p + %zu is in use by %s", memory, block->bytes, user);
    }
    fake_order_forget(memory, block->bytes);
    check_zones("cudaFree", block);
    poison(block);
    used_bytes -= block->room + (size_t)2 * FAKE_ALIGN;
    size_t place = (size_t)(block - blocks);
    memmove(block, block + 1, (--block_count - place) * sizeof *block);
    return cudaSuccess;
}

size_t fake_memory_used(void) {
    return used_bytes;
}

size_t fakecuda_live_blocks(void) {
    return block_count + pinned_count;
}

static struct pinned *find_pinned(const void *memory, size_t bytes) {
    for (size_t i = 0; i < pinned_count; i++) {
        uintptr_t offset = (uintptr_t)memory - pinned[i].start;
        if (offset < pinned[i].bytes && bytes <= pinned[i].bytes - offset) {
            return &pinned[i];
        }
    }
    return NULL;
}

bool fake_memory_is_pinned(const void *memory, size_t bytes) {
    return find_pinned(memory, bytes) != NULL;
}

bool fake_memory_check(const char *name, int device, const void *memory, size_t bytes) {
    if (!fake_memory_is_device(memory)) {
        if (!find_pinned(memory, bytes)) {
            fake_violation("%s: %p + %zu is neither device nor pinned memory", name, memory, bytes);
            return false;
        }
        return true;
    }
    const struct block *block = find_block(memory);
    if (!block || (uintptr_t)memory - block->start > block->bytes - bytes || bytes > block->bytes) {
        fake_violation("%s: %p + %zu is not inside a live block (nearest: %p + %zu)", name, memory,
                       bytes, block ? (void *)block->start : NULL, block ? block->bytes : 0);
        return false;
    }
    if (block->device != device) {
        fake_violation("%s: %p + %zu is memory of device %d, the stream is of device %d", name,
                       memory, bytes, block->device, device);
        return false;
    }
    return true;
}

cudaError_t fake_host_pin(void *memory, size_t bytes, unsigned flags, void **ret_memory) {
    (void)flags;
    bool allocated = memory == NULL;
    if (bytes == 0 || pinned_count == PINNED_MAX) {
        return cudaErrorInvalidValue;
    }
    for (size_t i = 0; i < pinned_count && !allocated; i++) {
        if ((uintptr_t)memory < pinned[i].start + pinned[i].bytes &&
            pinned[i].start < (uintptr_t)memory + bytes) {
            return cudaErrorHostMemoryAlreadyRegistered;
        }
    }
    if (allocated) {
        memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
        if (!memory) {
            return cudaErrorMemoryAllocation;
        }
        memset(memory, NEW_BYTE, bytes);
    }
    pinned[pinned_count++] =
        (struct pinned){.start = (uintptr_t)memory, .bytes = bytes, .allocated = allocated};
    *ret_memory = memory;
    return cudaSuccess;
}

cudaError_t fake_host_unpin(void *memory, bool allocated) {
    const char *call = allocated ? "cudaFreeHost" : "cudaHostUnregister";
    struct pinned *found = find_pinned(memory, 1);
    if (!found || found->start != (uintptr_t)memory || found->allocated != allocated) {
        fake_violation("%s: %p is not such memory", call, memory);
        return allocated ? cudaErrorInvalidValue : cudaErrorHostMemoryNotRegistered;
    }
    struct fake_range all = {.memory = memory, .bytes = found->bytes, .write = true};
    const char *user = fake_order_conflict(fake_host_clock(), &all);
    if (user) {
        fake_violation("%s: %p + %zu is in use by %s", call, memory, found->bytes, user);
    }
    fake_order_forget(memory, found->bytes);
    *found = pinned[--pinned_count];
    if (allocated) {
        free(memory);
    }
    return cudaSuccess;
}
