/* SPDX-License-Identifier: Apache-2.0 */
/* Memory between ranks, and the arithmetic of collectives.
 *
 * A world is a memfd. Its name says in which process and under which number it is open; the other
 * ranks open it through /proc, so that nothing has a name that could be left behind. Whoever made
 * the name must live until all have joined: rank 0's process does.
 *
 * Reductions go from rank 0 up, in fp32 (fp64, int64), and are rounded once. */
#include "tests/gpu/fakecuda/nccl_world.h"

#include "tests/gpu/fakecuda/numbers.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define AREAS_AT    ((size_t)65536)
#define WORLD_BYTES (AREAS_AT + NCCL_RANKS_MAX * NCCL_AREA_BYTES)

_Static_assert(sizeof(struct nccl_world) <= 65536, "lies before the areas");

enum {
    CHUNK = 1024, /* values reduced at a time */
};

struct name {
    char magic[16];
    int64_t pid;
    int64_t fd;
    uint64_t cookie;
};

_Static_assert(sizeof(struct name) <= NCCL_UNIQUE_ID_BYTES, "fits into the id");

static const char magic[16] = "stand-in nccl 1";

static struct nccl_world *map(int fd) {
    void *memory =
        mmap(NULL, WORLD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

bool nccl_world_create(ncclUniqueId *ret_id) {
    struct name name = {.pid = getpid(), .fd = memfd_create("fakenccl", MFD_CLOEXEC)};
    memcpy(name.magic, magic, sizeof magic);
    struct nccl_world *world = NULL;
    if (name.fd >= 0 && ftruncate((int)name.fd, (off_t)WORLD_BYTES) == 0 &&
        getrandom(&name.cookie, sizeof name.cookie, 0) == sizeof name.cookie) {
        world = map((int)name.fd);
    }
    if (!world) {
        return false;
    }
    world->cookie = name.cookie;
    nccl_world_detach(world);
    memset(ret_id, 0, sizeof *ret_id);
    memcpy(ret_id, &name, sizeof name);
    return true;
}

struct nccl_world *nccl_world_attach(const ncclUniqueId *id) {
    struct name name;
    char path[64];
    memcpy(&name, id, sizeof name);
    if (memcmp(name.magic, magic, sizeof magic) != 0) {
        return NULL;
    }
    snprintf(path, sizeof path, "/proc/%" PRId64 "/fd/%" PRId64, name.pid, name.fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct nccl_world *world = fd < 0 ? NULL : map(fd);
    if (fd >= 0) {
        close(fd);
    }
    if (world && world->cookie != name.cookie) {
        nccl_world_detach(world);
        world = NULL;
    }
    return world;
}

void nccl_world_complete(const ncclUniqueId *id) {
    struct name name;
    memcpy(&name, id, sizeof name);
    if (name.pid == getpid()) {
        close((int)name.fd);
    }
}

void nccl_world_detach(struct nccl_world *world) {
    munmap(world, WORLD_BYTES);
}

void *nccl_world_area(struct nccl_world *world, int rank) {
    return (char *)world + AREAS_AT + (size_t)rank * NCCL_AREA_BYTES;
}

size_t nccl_type_bytes(ncclDataType_t type) {
    switch ((int)type) {
    case ncclInt8:
    case ncclUint8:
        return 1;
    case ncclFloat16:
    case ncclBfloat16:
        return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
        return 4;
    case ncclInt64:
    case ncclUint64:
    case ncclFloat64:
        return 8;
    default:
        return 0;
    }
}

/* ---- one kind of number after the other; `all` has a row of CHUNK values a rank ---- */

#define REDUCE(name, type)                                                                         \
    static void name(type(*all)[CHUNK], int ranks, size_t count, ncclRedOp_t op) {                 \
        for (int rank = 1; rank < ranks; rank++) {                                                 \
            for (size_t i = 0; i < count; i++) {                                                   \
                type a = all[0][i], b = all[rank][i];                                              \
                all[0][i] = op == ncclProd  ? a * b                                                \
                            : op == ncclMax ? (a > b ? a : b)                                      \
                            : op == ncclMin ? (a < b ? a : b)                                      \
                                            : a + b;                                               \
            }                                                                                      \
        }                                                                                          \
        for (size_t i = 0; i < count && op == ncclAvg; i++) {                                      \
            all[0][i] /= (type)ranks;                                                              \
        }                                                                                          \
    }

REDUCE(reduce_floats, float)
REDUCE(reduce_doubles, double)
REDUCE(reduce_int32, int32_t)
REDUCE(reduce_int64, int64_t)

static enum fake_type float_type(ncclDataType_t type) {
    return type == ncclFloat16 ? FAKE_F16 : type == ncclBfloat16 ? FAKE_BF16 : FAKE_F32;
}

static union {
    float f[NCCL_RANKS_MAX][CHUNK];
    double d[NCCL_RANKS_MAX][CHUNK];
    int32_t i32[NCCL_RANKS_MAX][CHUNK];
    int64_t i64[NCCL_RANKS_MAX][CHUNK];
} rows; /* used under the lock of the stand-in */

static void *row_of(size_t bytes, int rank) {
    return bytes == 8 ? (void *)rows.d[rank] : (void *)rows.f[rank];
}

static void reduce_chunk(struct nccl_world *world, int ranks, const struct nccl_call *call,
                         size_t first, void *result) {
    size_t bytes = nccl_type_bytes(call->type);
    size_t count = call->count - first < CHUNK ? call->count - first : CHUNK;
    bool small = call->type == ncclFloat16 || call->type == ncclBfloat16;
    for (int rank = 0; rank < ranks; rank++) {
        const char *from = (char *)nccl_world_area(world, rank) + first * bytes;
        if (small) {
            fake_to_float(float_type(call->type), from, count, rows.f[rank]);
        } else {
            memcpy(row_of(bytes, rank), from, count * bytes);
        }
    }
    if (small || call->type == ncclFloat32) {
        reduce_floats(rows.f, ranks, count, call->op);
    } else if (call->type == ncclFloat64) {
        reduce_doubles(rows.d, ranks, count, call->op);
    } else if (bytes == 4) {
        reduce_int32(rows.i32, ranks, count, call->op);
    } else {
        reduce_int64(rows.i64, ranks, count, call->op);
    }
    char *to = (char *)result + first * bytes;
    if (small) {
        fake_from_float(float_type(call->type), rows.f[0], count, to);
    } else {
        memcpy(to, row_of(bytes, 0), count * bytes);
    }
}

void nccl_world_result(struct nccl_world *world, int ranks, const struct nccl_call *call,
                       void *result) {
    if (call->kind == NCCL_BROADCAST) {
        memcpy(result, nccl_world_area(world, call->root),
               call->count * nccl_type_bytes(call->type));
        return;
    }
    for (size_t first = 0; first < call->count; first += CHUNK) {
        reduce_chunk(world, ranks, call, first, result);
    }
}
