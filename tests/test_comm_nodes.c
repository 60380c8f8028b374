/* SPDX-License-Identifier: Apache-2.0 */
/* Collectives over a chain of machines: each machine is a set of threads (so that sanitizers see
 * all sides) or of processes over its own shared memory, with real sockets between the machines. */
#include "workers/comm.h"

#include "base/err.h"
#include "base/rng.h"
#include "ipc/wire.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    NODES_MAX = 4,
    RANKS_MAX = 6,
    PIECE =
        (NNC_WIRE_BODY_MAX - 16) / 4, /* floats of a frame, and of a segment, of comm_nodes.c: */
    SEGMENT = 4 * PIECE,              /* sizes around them are the interesting ones */
    LONG_MS = 600000,                 /* a test that comes to this has failed long before */
    HEADER = 16,
};

struct world {
    uint32_t nodes, ranks, local[NODES_MAX];
    void *memory[NODES_MAX];
    int link[NODES_MAX][2]; /* between node n and the one behind it: n's end, the other's end */
    int deadline_ms;
    bool tiny; /* buffers of sockets and wires as small as they can be; TCP itself would crawl so */
};

struct rank_job {
    pthread_t thread;
    const struct world *world;
    uint32_t rank, node, first;
    struct nnc_comm *comm;
    struct nnc_wire *before, *after;
    int (*work)(struct rank_job *job);
    int (*alive)(void *job);
    size_t count;
    float *values;
    int code;
    char text[NNC_ERROR_TEXT_MAX];
};

static const uint32_t layouts[][NODES_MAX + 1] = {
    {1, 1}, {2, 2}, {3, 1}, {1, 3}, {2, 1}, {2, 1, 2}, {1, 1, 1, 1}, {1, 2, 2, 1},
};
#define LAYOUTS (sizeof(layouts) / sizeof(layouts[0]))

static const size_t sizes[] = {
    0,         1,       17,          PIECE - 1,           PIECE,
    PIECE + 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 12345, 13 * SEGMENT + 2 * PIECE + 7};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

/* Connect two machines: a pair within the machine, or TCP over its loopback. */
static void connect_pair(bool tcp, int ret_fds[2]) {
    if (!tcp) {
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret_fds), 0);
        return;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, bytes), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    ret_fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(ret_fds[0], (struct sockaddr *)&address, bytes), 0);
    ret_fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    cr_assert_geq(ret_fds[1], 0);
    close(listener);
}

static void open_world(const uint32_t *layout, bool tcp, struct world *ret_world) {
    *ret_world = (struct world){.deadline_ms = LONG_MS};
    for (uint32_t node = 0; node < NODES_MAX && layout[node] > 0; node++) {
        size_t bytes = nnc_comm_shm_bytes(layout[node]);
        ret_world->local[node] = layout[node];
        ret_world->ranks += layout[node];
        ret_world->nodes++;
        if (bytes > 0) {
            ret_world->memory[node] =
                mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            cr_assert_neq(ret_world->memory[node], MAP_FAILED);
        }
        if (node > 0) {
            connect_pair(tcp, ret_world->link[node - 1]);
        }
    }
}

/* Ranks close the sockets with their wires. */
static void close_world(struct world *world) {
    for (uint32_t node = 0; node < world->nodes; node++) {
        if (world->memory[node] != NULL) {
            munmap(world->memory[node], nnc_comm_shm_bytes(world->local[node]));
        }
    }
}

static struct nnc_wire *wire_on(int fd, bool first_end, bool tiny) {
    struct nnc_wire_keys keys;
    struct nnc_wire *wire = NULL;
    int least = 1; /* the kernel makes it its own least */
    memset(keys.send, first_end ? 1 : 2, sizeof(keys.send));
    memset(keys.receive, first_end ? 2 : 1, sizeof(keys.receive));
    if (tiny) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &least, sizeof(least));
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least));
    }
    return nnc_wire_create(fd, &keys, tiny ? 1 : 1 << 18, &wire) < 0 ? NULL : wire;
}

static int run_rank(struct rank_job *job) {
    const struct world *world = job->world;
    bool leads = job->rank == job->first;
    if (leads && job->node > 0) {
        job->before = wire_on(world->link[job->node - 1][1], false, world->tiny);
    }
    if (leads && job->node + 1 < world->nodes) {
        job->after = wire_on(world->link[job->node][0], true, world->tiny);
    }
    struct nnc_comm_params params = {.rank = job->rank,
                                     .ranks = world->ranks,
                                     .first = job->first,
                                     .local_ranks = world->local[job->node],
                                     .node = job->node,
                                     .nodes = world->nodes,
                                     .before = job->before,
                                     .after = job->after,
                                     .fd = -1,
                                     .memory = world->memory[job->node],
                                     .deadline_ms = world->deadline_ms,
                                     .alive = job->alive,
                                     .context = job};
    int code = nnc_comm_create(&params, &job->comm);
    code = code < 0 ? code : job->work(job);
    nnc_comm_destroy(job->comm);
    nnc_wire_destroy(job->before);
    nnc_wire_destroy(job->after);
    return code;
}

static void *thread_main(void *context) {
    struct rank_job *job = context;
    job->code = run_rank(job);
    strcpy(job->text, nnc_error_text());
    return NULL;
}

/* A value with many bits set, so that another order of summation shows. */
static float value_of(uint32_t rank, size_t i) {
    uint32_t counter[4] = {(uint32_t)i, rank, 0, 0}, key[2] = {7, 9};
    struct nnc_philox_block block = nnc_philox(counter, key);
    return ldexpf((float)(int32_t)block.word[0], (int)(block.word[1] % 40) - 50);
}

static void make_jobs(const struct world *world, size_t count, int (*work)(struct rank_job *),
                      struct rank_job *ret_jobs) {
    uint32_t rank = 0;
    for (uint32_t node = 0; node < world->nodes; node++) {
        uint32_t first = rank;
        for (; rank < first + world->local[node]; rank++) {
            struct rank_job *job = &ret_jobs[rank];
            *job = (struct rank_job){.world = world,
                                     .rank = rank,
                                     .node = node,
                                     .first = first,
                                     .work = work,
                                     .count = count,
                                     .values = malloc((count + 1) * sizeof(float))};
            for (size_t i = 0; i < count; i++) {
                job->values[i] = value_of(rank, i);
            }
            job->values[count] = 1234.5f;
        }
    }
}

static void free_jobs(struct rank_job *jobs, uint32_t ranks) {
    for (uint32_t rank = 0; rank < ranks; rank++) {
        free(jobs[rank].values);
    }
}

static void run_threads(struct rank_job *jobs, uint32_t ranks) {
    for (uint32_t rank = 0; rank < ranks; rank++) {
        cr_assert_eq(pthread_create(&jobs[rank].thread, NULL, thread_main, &jobs[rank]), 0);
    }
    for (uint32_t rank = 0; rank < ranks; rank++) {
        pthread_join(jobs[rank].thread, NULL);
    }
}

static void check_codes(const struct rank_job *jobs, uint32_t ranks) {
    for (uint32_t rank = 0; rank < ranks; rank++) {
        cr_assert_eq(jobs[rank].code, 0, "rank %u of %u: %s", rank, ranks, jobs[rank].text);
    }
}

/* Run one piece of work on all ranks of a layout, which must do well. */
static void run_layout(const uint32_t *layout, bool tcp, int (*work)(struct rank_job *)) {
    struct world world;
    struct rank_job jobs[RANKS_MAX];
    open_world(layout, tcp, &world);
    make_jobs(&world, 1, work, jobs);
    run_threads(jobs, world.ranks);
    check_codes(jobs, world.ranks);
    free_jobs(jobs, world.ranks);
    close_world(&world);
}

static int work_allreduce(struct rank_job *job) {
    return nnc_comm_allreduce(job->comm, job->values, job->count);
}

/* What comm_shm.c makes of the same values on one machine. */
static float *sums_of_one_machine(uint32_t ranks, size_t count) {
    struct world world;
    struct rank_job jobs[RANKS_MAX];
    open_world((const uint32_t[]){ranks, 0}, false, &world);
    make_jobs(&world, count, work_allreduce, jobs);
    run_threads(jobs, ranks);
    check_codes(jobs, ranks);
    float *sums = jobs[0].values;
    jobs[0].values = NULL;
    free_jobs(jobs, ranks);
    close_world(&world);
    return sums;
}

static float ordered_sum(uint32_t ranks, size_t i) {
    float sum = value_of(0, i);
    for (uint32_t rank = 1; rank < ranks; rank++) {
        sum += value_of(rank, i);
    }
    return sum;
}

static void check_sums(const struct rank_job *jobs, uint32_t ranks, size_t count) {
    float *one = sums_of_one_machine(ranks, count);
    for (size_t i = 0; i < count; i++) {
        float want = ordered_sum(ranks, i);
        cr_assert(memcmp(&jobs[0].values[i], &want, sizeof(want)) == 0,
                  "%u ranks, count %zu, float %zu: %.9g, not %.9g", ranks, count, i,
                  (double)jobs[0].values[i], (double)want);
    }
    for (uint32_t rank = 0; rank < ranks; rank++) {
        cr_assert(memcmp(jobs[rank].values, one, (count + 1) * sizeof(float)) == 0,
                  "%u ranks, count %zu, rank %u: not as on one machine", ranks, count, rank);
    }
    free(one);
}

static void sum_on(const uint32_t *layout, bool tcp, bool tiny, size_t count) {
    struct world world;
    struct rank_job jobs[RANKS_MAX];
    open_world(layout, tcp, &world);
    world.tiny = tiny;
    make_jobs(&world, count, work_allreduce, jobs);
    run_threads(jobs, world.ranks);
    check_codes(jobs, world.ranks);
    check_sums(jobs, world.ranks, count);
    free_jobs(jobs, world.ranks);
    close_world(&world);
}

Test(comm_nodes, a_sum_has_the_bits_that_one_machine_makes_at_any_size_and_chain) {
    for (size_t row = 0; row < LAYOUTS; row++) {
        for (size_t size = 0; size < SIZES; size++) {
            sum_on(layouts[row], row % 2 == 0, false, sizes[size]);
        }
    }
}

Test(comm_nodes, small_socket_buffers_do_not_lock_a_chain_up) {
    const size_t count = 13 * SEGMENT + 5;
    sum_on((const uint32_t[]){1, 1, 0}, false, true, count);
    sum_on((const uint32_t[]){1, 2, 1, 0}, false, true, count);
    sum_on((const uint32_t[]){1, 1, 1, 1, 0}, false, true, count);
}

static int work_negative_zero(struct rank_job *job) {
    const float want = -0.0f;
    job->values[0] = -0.0f;
    int code = nnc_comm_allreduce(job->comm, job->values, 1);
    return code < 0 || memcmp(job->values, &want, sizeof(want)) == 0
               ? code
               : nnc_fail(-NNC_E_FORMAT, "the sum of -0 is %g", (double)job->values[0]);
}

Test(comm_nodes, a_sum_of_negative_zeros_is_one) {
    for (size_t row = 0; row < LAYOUTS; row++) {
        run_layout(layouts[row], false, work_negative_zero);
    }
}

/* Any bits at all, NaNs that would change in arithmetic among them. */
static int work_broadcast(struct rank_job *job) {
    for (size_t size = 0; size < SIZES; size++) {
        size_t count = sizes[size];
        uint32_t *words = malloc((count + 1) * sizeof(uint32_t));
        int code = words == NULL ? -ENOMEM : 0;
        for (size_t i = 0; code == 0 && i <= count; i++) {
            words[i] = job->rank == 0 || i == count ? 0x7f800001u + (uint32_t)i * 0x9e3779b9u : 0;
        }
        code = code < 0 ? code : nnc_comm_broadcast(job->comm, (float *)(void *)words, count);
        for (size_t i = 0; code == 0 && i <= count; i++) {
            if (words[i] != 0x7f800001u + (uint32_t)i * 0x9e3779b9u) {
                code = nnc_fail(-NNC_E_FORMAT, "size %zu: word %zu is %x", count, i, words[i]);
            }
        }
        free(words);
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

Test(comm_nodes, a_broadcast_copies_the_bits_of_rank_0) {
    for (size_t row = 0; row < LAYOUTS; row++) {
        run_layout(layouts[row], row % 2 == 1, work_broadcast);
    }
}

static int work_gather(struct rank_job *job) {
    for (size_t bytes = 1; bytes <= NNC_COMM_BLOCK_MAX; bytes++) {
        uint8_t block[NNC_COMM_BLOCK_MAX], blocks[RANKS_MAX * NNC_COMM_BLOCK_MAX + 1];
        size_t total = job->world->ranks * bytes;
        memset(block, (int)(job->rank * 40 + bytes), bytes);
        blocks[total] = 77;
        int code = nnc_comm_gather(job->comm, block, bytes, blocks);
        for (size_t at = 0; code == 0 && at < total; at++) {
            if (blocks[at] != (uint8_t)(at / bytes * 40 + bytes)) {
                code = nnc_fail(-NNC_E_FORMAT, "blocks of %zu, byte %zu", bytes, at);
            }
        }
        if (code < 0 || blocks[total] != 77) {
            return code < 0 ? code : nnc_fail(-NNC_E_FORMAT, "%zu: beyond the blocks", bytes);
        }
    }
    return 0;
}

Test(comm_nodes, a_gather_gives_every_rank_all_blocks_in_rank_order) {
    for (size_t row = 0; row < LAYOUTS; row++) {
        run_layout(layouts[row], false, work_gather);
    }
}

static int mix_round(struct rank_job *job, uint32_t round) {
    uint32_t ranks = job->world->ranks, word = 0;
    uint32_t mine = job->rank == round % ranks ? round + 1 : 0;
    int code = nnc_comm_agree(job->comm, mine, &word);
    if (code < 0 || word != round + 1) {
        return code < 0 ? code : nnc_fail(-NNC_E_FORMAT, "round %u agreed on %u", round, word);
    }
    static const size_t counts[] = {0, 1, 70, PIECE, SEGMENT + 3};
    size_t count = counts[round % 5];
    for (size_t i = 0; i < count; i++) {
        job->values[i] = (float)(job->rank + 1);
    }
    code = nnc_comm_allreduce(job->comm, job->values, count);
    for (size_t i = 0; code == 0 && i < count; i++) {
        if (job->values[i] != (float)(ranks * (ranks + 1) / 2)) {
            return nnc_fail(-NNC_E_FORMAT, "round %u: wrong sum", round);
        }
    }
    for (uint32_t again = 0; code == 0 && again < round % 7; again++) {
        float value = job->rank == 0 ? (float)(round * 10 + again) : -1.0f;
        code = nnc_comm_broadcast(job->comm, &value, 1);
        if (code == 0 && value != (float)(round * 10 + again)) {
            return nnc_fail(-NNC_E_FORMAT, "round %u: broadcast", round);
        }
    }
    return code;
}

static int work_mixture(struct rank_job *job) {
    int code = 0;
    for (uint32_t round = 0; code == 0 && round < 100; round++) {
        code = mix_round(job, round);
    }
    return code;
}

Test(comm_nodes, operations_of_all_kinds_follow_one_another) {
    for (size_t row = 0; row < LAYOUTS; row++) {
        struct world world;
        struct rank_job jobs[RANKS_MAX];
        open_world(layouts[row], row % 3 < 2, &world);
        world.tiny = row % 3 == 2;
        make_jobs(&world, SEGMENT + 3, work_mixture, jobs);
        run_threads(jobs, world.ranks);
        check_codes(jobs, world.ranks);
        free_jobs(jobs, world.ranks);
        close_world(&world);
    }
}

/* Run work that must end in errors, on two machines of one rank or as the layout has it. */
static void run_failing(const uint32_t *layout, int (*work)(struct rank_job *), int deadline_ms,
                        int (*alive)(void *), struct rank_job *ret_jobs) {
    struct world world;
    open_world(layout, false, &world);
    world.deadline_ms = deadline_ms;
    make_jobs(&world, SEGMENT, work, ret_jobs);
    for (uint32_t rank = 0; rank < world.ranks; rank++) {
        ret_jobs[rank].alive = alive;
    }
    run_threads(ret_jobs, world.ranks);
    free_jobs(ret_jobs, world.ranks);
    close_world(&world);
}

#define check_text(job, code_, words)                                                              \
    do {                                                                                           \
        cr_assert_eq((job)->code, (code_), "code %d: %s", (job)->code, (job)->text);               \
        cr_assert_not_null(strstr((job)->text, (words)), "%s", (job)->text);                       \
    } while (0)

static int work_other_size(struct rank_job *job) {
    int code = nnc_comm_broadcast(job->comm, job->values, 1);
    return code < 0 ? code : nnc_comm_allreduce(job->comm, job->values, 10 + job->node);
}

static int work_other_kind(struct rank_job *job) {
    uint8_t block[8] = {0}, blocks[16];
    return job->node == 0 ? nnc_comm_gather(job->comm, block, 8, blocks)
                          : nnc_comm_broadcast(job->comm, job->values, 10);
}

static int work_one_more(struct rank_job *job) {
    int code = job->node == 0 ? 0 : nnc_comm_allreduce(job->comm, job->values, 0);
    return code < 0 ? code : nnc_comm_allreduce(job->comm, job->values, 10);
}

Test(comm_nodes, machines_that_call_different_operations_are_told_so) {
    const uint32_t layout[] = {1, 1, 0};
    struct rank_job jobs[RANKS_MAX];
    run_failing(layout, work_other_size, LONG_MS, NULL, jobs);
    check_text(
        &jobs[1], -NNC_E_HARDWARE,
        "the machine before (node 0): it is at collective 1, a sum of 40 bytes; this machine "
        "is at collective 1, a sum of 44 bytes");
    check_text(&jobs[0], -NNC_E_COMM, "the machine behind (node 1) closed");
    run_failing(layout, work_other_kind, LONG_MS, NULL, jobs);
    check_text(&jobs[1], -NNC_E_HARDWARE,
               "a gather of 16 bytes; this machine is at collective 0, a br");
    check_text(&jobs[0], -NNC_E_COMM, "closed");
    run_failing(layout, work_one_more, LONG_MS, NULL, jobs);
    check_text(&jobs[1], -NNC_E_HARDWARE, "it is at collective 0");
    check_text(&jobs[1], -NNC_E_HARDWARE, "this machine is at collective 1");
}

/* What a neighbour with the right keys, but nothing good in mind, sends to a rank that sums. */
struct piece {
    uint64_t operation, bytes;
    uint32_t type, body_bytes;
    const char *words;
};

static const struct piece bad_pieces[] = {
    {0, 40, 1, 0, "a piece of 0 bytes"},
    {0, 40, 1, HEADER - 1, "a piece of 15 bytes"},
    {0, 40, 1, HEADER, "a piece of 0 bytes where 40 are left"},
    {0, 40, 1, HEADER + 39, "a piece of 39 bytes where 40 are left"},
    {0, 40, 1, HEADER + 41, "a piece of 41 bytes where 40 are left"},
    {0, 40, 1, NNC_WIRE_BODY_MAX, "where 40 are left"},
    {0, 40, 9, HEADER + 40, "something unknown of 40 bytes"},
    {0, UINT64_MAX, 1, HEADER + 40, "18446744073709551615 bytes"},
    {UINT64_MAX, 40, 1, HEADER + 40, "at collective 18446744073709551615"},
};

static int work_bad_piece(struct rank_job *job) {
    if (job->node == 1) {
        return nnc_comm_allreduce(job->comm, job->values, 10);
    }
    const struct piece *piece = (const struct piece *)job->values;
    uint8_t body[NNC_WIRE_BODY_MAX] = {0};
    memcpy(body, piece, HEADER);
    return nnc_wire_send(job->after, piece->type, body, piece->body_bytes);
}

Test(comm_nodes, every_length_in_a_neighbours_frame_is_checked) {
    for (size_t row = 0; row < sizeof(bad_pieces) / sizeof(bad_pieces[0]); row++) {
        struct world world;
        struct rank_job jobs[RANKS_MAX];
        open_world((const uint32_t[]){1, 1, 0}, false, &world);
        make_jobs(&world, 100, work_bad_piece, jobs);
        memcpy(jobs[0].values, &bad_pieces[row], sizeof(bad_pieces[row]));
        run_threads(jobs, 2);
        cr_assert_eq(jobs[0].code, 0, "%s", jobs[0].text);
        check_text(&jobs[1], -NNC_E_HARDWARE, bad_pieces[row].words);
        check_text(&jobs[1], -NNC_E_HARDWARE, "the machine before (node 0)");
        free_jobs(jobs, 2);
        close_world(&world);
    }
}

/* The last machine sends the total of all pieces, having seen one. */
static int work_hasty_total(struct rank_job *job) {
    if (job->node == 0) {
        return nnc_comm_allreduce(job->comm, job->values, 60 * SEGMENT);
    }
    uint8_t body[NNC_WIRE_BODY_MAX] = {0};
    const uint64_t header[2] = {0, 60 * SEGMENT * sizeof(float)};
    memcpy(body, header, sizeof(header));
    for (int code = 0;;) {
        struct pollfd room = {.fd = nnc_wire_fd(job->before), .events = POLLOUT};
        code = nnc_wire_send(job->before, 1, body, sizeof(body));
        if (code < 0 && code != -ENOBUFS) {
            return code;
        }
        poll(&room, 1, 1000);
    }
}

Test(comm_nodes, a_total_that_comes_too_early_is_refused) {
    struct world world;
    struct rank_job jobs[RANKS_MAX];
    open_world((const uint32_t[]){1, 1, 0}, false, &world);
    make_jobs(&world, 60 * SEGMENT, work_hasty_total, jobs);
    run_threads(jobs, 2);
    check_text(&jobs[0], -NNC_E_HARDWARE, "it sent a total before it got the sum");
    free_jobs(jobs, 2);
    close_world(&world);
}

static int work_garbage(struct rank_job *job) {
    uint8_t garbage[100] = {1, 0, 0, 0, 8, 0, 0, 0};
    return job->node == 0 ? (int)send(nnc_wire_fd(job->after), garbage, sizeof(garbage), 0)
                          : nnc_comm_allreduce(job->comm, job->values, 10);
}

Test(comm_nodes, bytes_that_are_no_frame_end_in_an_error) {
    struct rank_job jobs[RANKS_MAX];
    run_failing((const uint32_t[]){1, 1, 0}, work_garbage, LONG_MS, NULL, jobs);
    cr_assert_eq(jobs[0].code, 100);
    check_text(&jobs[1], -NNC_E_HARDWARE, "the machine before (node 0): wire: ");
}

/* The first machine is there, but does not come. It leaves when the others gave up. */
static int work_stays_away(struct rank_job *job) {
    struct pollfd closed = {.fd = job->node == 0 ? nnc_wire_fd(job->after) : -1, .events = POLLIN};
    return job->node == 0 ? poll(&closed, 1, LONG_MS)
                          : nnc_comm_allreduce(job->comm, job->values, job->count);
}

Test(comm_nodes, a_missing_machine_ends_in_an_error_at_the_deadline) {
    struct rank_job jobs[RANKS_MAX];
    run_failing((const uint32_t[]){1, 2, 0}, work_stays_away, 250, NULL, jobs);
    cr_assert_eq(jobs[0].code, 1);
    check_text(&jobs[1], -NNC_E_COMM, "the machine before (node 0): it kept this machine waiting");
    check_text(&jobs[2], -NNC_E_COMM, "rank 2: the group was stopped");
}

static int alive_stops(void *job) {
    nnc_comm_stop(((struct rank_job *)job)->comm);
    return 0;
}

Test(comm_nodes, stop_ends_the_leaders_wait_for_the_network) {
    struct rank_job jobs[RANKS_MAX];
    run_failing((const uint32_t[]){1, 1, 0}, work_stays_away, LONG_MS, alive_stops, jobs);
    check_text(&jobs[1], -NNC_E_COMM, "rank 1: the group was stopped");
}

static int work_peer_stops(struct rank_job *job) {
    if (job->rank == 2) {
        nnc_comm_stop(job->comm);
        return nnc_comm_stopped(job->comm) ? 0 : -1;
    }
    return work_stays_away(job);
}

Test(comm_nodes, any_rank_of_a_machine_can_stop_its_leaders_wait) {
    struct rank_job jobs[RANKS_MAX];
    run_failing((const uint32_t[]){1, 2, 0}, work_peer_stops, LONG_MS, NULL, jobs);
    cr_assert_eq(jobs[2].code, 0);
    check_text(&jobs[1], -NNC_E_COMM, "rank 1: the group was stopped");
}

static int alive_refuses(void *job) {
    (void)job;
    return nnc_fail(-ECHILD, "the coordinator is gone");
}

Test(comm_nodes, the_callers_own_check_ends_a_wait_and_the_machine_with_it) {
    struct rank_job jobs[RANKS_MAX];
    run_failing((const uint32_t[]){1, 1, 0}, work_stays_away, LONG_MS, alive_refuses, jobs);
    check_text(&jobs[1], -ECHILD, "the coordinator is gone");
}

/* Sums without end; tells when it has begun. */
static int work_endless(struct rank_job *job) {
    int code = 0;
    for (uint32_t round = 0; code == 0; round++) {
        code = nnc_comm_allreduce(job->comm, job->values, job->count);
        memset(job->values, 0, job->count * sizeof(float));
        if (round == 2 && job->rank == 0 && write(STDOUT_FILENO, "", 1) != 1) {
            return -EIO;
        }
    }
    return code;
}

static pid_t start_process(struct rank_job *job, int told_fd) {
    const struct world *world = job->world;
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid > 0) {
        return pid;
    }
    /* A socket that another machine holds open as well would not tell of its end. */
    bool leads = job->rank == job->first;
    for (uint32_t node = 0; node + 1 < world->nodes; node++) {
        for (uint32_t end = 0; end < 2; end++) {
            if (!leads || node + end != job->node) {
                close(world->link[node][end]);
            }
        }
    }
    dup2(told_fd, STDOUT_FILENO);
    int code = run_rank(job);
    _exit(code == -NNC_E_COMM ? 0 : 1);
}

/* Kill rank `victim` in the middle: all others must come to their own end, with the error. */
static void kill_one(const uint32_t *layout, uint32_t victim) {
    struct world world;
    struct rank_job jobs[RANKS_MAX];
    pid_t pids[RANKS_MAX];
    int told[2];
    char byte;
    open_world(layout, true, &world);
    make_jobs(&world, 7 * SEGMENT + 5, work_endless, jobs);
    cr_assert_eq(pipe(told), 0);
    for (uint32_t rank = 0; rank < world.ranks; rank++) {
        pids[rank] = start_process(&jobs[rank], told[1]);
    }
    for (uint32_t node = 0; node + 1 < world.nodes; node++) {
        close(world.link[node][0]);
        close(world.link[node][1]);
    }
    cr_assert_eq(read(told[0], &byte, 1), 1);
    kill(pids[victim], SIGKILL);
    for (uint32_t rank = 0; rank < world.ranks; rank++) {
        int status;
        cr_assert_eq(waitpid(pids[rank], &status, 0), pids[rank]);
        cr_assert(rank == victim ? WIFSIGNALED(status)
                                 : WIFEXITED(status) && WEXITSTATUS(status) == 0,
                  "victim %u, rank %u: status %x", victim, rank, (unsigned)status);
    }
    close(told[0]);
    close(told[1]);
    free_jobs(jobs, world.ranks);
    close_world(&world);
}

Test(comm_nodes, a_machine_that_dies_ends_all_others_long_before_the_deadline) {
    kill_one((const uint32_t[]){2, 2, 1, 0}, 4);
    kill_one((const uint32_t[]){1, 2, 2, 0}, 0);
    kill_one((const uint32_t[]){2, 1, 2, 0}, 2);
    kill_one((const uint32_t[]){1, 1, 1, 1}, 1);
}
