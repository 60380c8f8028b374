/* SPDX-License-Identifier: Apache-2.0 */
/* The real ring code under many schedules: trainer, loaders and coordinator are coroutines, and at
 * each step of the protocol another one may go on or the running loader may die.
 *
 *   exhaustive: every schedule with at most so many switches and deaths (depth-first over the
 * decisions) random:     many switches and two deaths, from a seed
 *
 * A schedule is right when every batch arrives whole, no sample has two living owners, none is
 * published twice, and nobody waits for ever: waits have no time-out here, so a lost wake-up is a
 * failure.
 *
 * Source: Emmi, Qadeer, Rakamaric, "Delay-bounded scheduling", POPL 2011.
 * Sees sequentially consistent interleavings only; wrong memory orders are for the thread
 * sanitizer. */
#include "base/err.h"
#include "base/rng.h"
#include "ipc/futex.h"
#include "ipc/ring_private.h"
#include "ipc/ring_steps.h"
#include "support/ring_stamp.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#define PIXEL_BYTES   6
#define STACK_BYTES   65536
#define DECISIONS_MAX 4096
#define STEPS_MAX     20000
#define BATCHES_MAX   4
#define SAMPLES_MAX   2
#define DEATHS_MAX    2

enum actor_number {
    TRAINER,
    COORDINATOR,
    LOADER_1,
    LOADER_2,
    LOADER_3, /* replaces the first dead one */
    LOADER_4,
    ACTORS,
};

enum actor_state {
    ASLEEP, /* not born yet */
    READY,
    BLOCKED, /* until *watched differs from seen */
    FINISHED,
    DEAD,
};

struct actor {
    enum actor_state state;
    _Atomic uint32_t *watched;
    uint32_t seen;
    struct nnc_ring *ring;
    ucontext_t context;
    char *stack;
};

/* A small case to explore. */
struct shape {
    const char *name;
    uint32_t batch, batches;
    unsigned switches, deaths; /* most, per schedule */
    uint64_t least;            /* schedules: fewer means that steps are missing */
};

static struct {
    const struct shape *shape;
    struct nnc_ring *owner;
    struct actor actors[ACTORS];
    ucontext_t scheduler;
    int current;
    /* this schedule */
    unsigned switches, deaths, steps;
    _Atomic uint32_t dead_count;
    int dead[DEATHS_MAX];
    int holder[BATCHES_MAX][SAMPLES_MAX]; /* living owner, 0 none */
    unsigned published[BATCHES_MAX][SAMPLES_MAX];
    uint64_t delivered;
    /* decisions of this schedule */
    unsigned choice[DECISIONS_MAX], options[DECISIONS_MAX];
    unsigned decided, depth;
    bool is_random;
    struct nnc_rng rng;
    /* over all schedules */
    uint64_t schedules, total_deaths, put_back;
} world;

/* Nothing sleeps in the kernel here. */
void nnc_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns) {
    (void)word;
    (void)expected;
    (void)deadline_ns;
}

void nnc_futex_wait_any(_Atomic uint32_t *const words[], const uint32_t expected[], unsigned count,
                        uint64_t deadline_ns) {
    (void)words;
    (void)expected;
    (void)count;
    (void)deadline_ns;
}

void nnc_futex_wake(_Atomic uint32_t *word, int sleepers) {
    (void)word;
    (void)sleepers;
}

/* The schedule so far, so that a failure can be followed. */
static void print_schedule(void) {
    fprintf(stderr, "%s, schedule %" PRIu64 ", decisions:", world.shape->name, world.schedules);
    for (unsigned i = 0; i < world.decided; i++) {
        fprintf(stderr, " %u", world.choice[i]);
    }
    fprintf(stderr, "\n");
}

#define REQUIRE(condition, ...)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fprintf(stderr, ": ");                                                                 \
            print_schedule();                                                                      \
            _exit(3);                                                                              \
        }                                                                                          \
    } while (0)

/* An assertion of the ring's own code failed. */
static void on_abort(int signal) {
    (void)signal;
    print_schedule();
    _exit(3);
}

/* Choose one of `options`: along the depth-first path, or at random with 0 likely. */
static unsigned decide(unsigned options) {
    if (options == 1) {
        return 0;
    }
    REQUIRE(world.decided < DECISIONS_MAX, "too many decisions");
    unsigned at = world.decided++;
    if (world.is_random) {
        bool stay = nnc_rng_below(&world.rng, 8) != 0;
        world.choice[at] = stay ? 0 : nnc_rng_below(&world.rng, options);
    } else if (at >= world.depth) {
        world.choice[at] = 0;
        world.options[at] = options;
        world.depth = at + 1;
    }
    return world.choice[at];
}

/* The next path in depth-first order; false when all were walked. */
static bool next_path(void) {
    while (world.depth > 0) {
        unsigned last = world.depth - 1;
        if (++world.choice[last] < world.options[last]) {
            return true;
        }
        world.depth--;
    }
    return false;
}

static bool is_runnable(int number) {
    const struct actor *actor = &world.actors[number];
    return actor->state == READY ||
           (actor->state == BLOCKED && atomic_load(actor->watched) != actor->seen);
}

static unsigned list_runnable(int except, int list[ACTORS]) {
    unsigned count = 0;
    for (int number = 0; number < ACTORS; number++) {
        if (number != except && is_runnable(number)) {
            list[count++] = number;
        }
    }
    return count;
}

/* Leave the running coroutine; the scheduler goes on. */
static void leave(void) {
    swapcontext(&world.actors[world.current].context, &world.scheduler);
}

static void kill_current(void) {
    int number = world.current;
    world.actors[number].state = DEAD;
    for (unsigned seq = 0; seq < BATCHES_MAX; seq++) {
        for (unsigned index = 0; index < SAMPLES_MAX; index++) {
            if (world.holder[seq][index] == number) {
                world.holder[seq][index] = 0;
            }
        }
    }
    world.dead[world.deaths++] = number;
    world.total_deaths++;
    atomic_fetch_add(&world.dead_count, 1);
    leave();
}

/* Between two accesses to shared words: go on, let another one in, or die. */
static void visit(void) {
    REQUIRE(++world.steps < STEPS_MAX, "this schedule does not end");
    int others[ACTORS];
    unsigned count = 0;
    if (world.switches < world.shape->switches) {
        count = list_runnable(world.current, others);
    }
    bool mortal = world.current >= LOADER_1 && world.deaths < world.shape->deaths;
    unsigned pick = decide(1 + count + mortal);
    if (pick == 0) {
        return;
    }
    if (pick > count) {
        kill_current();
    }
    world.switches++;
    int me = world.current;
    world.current = others[pick - 1];
    swapcontext(&world.actors[me].context, &world.actors[world.current].context);
}

void ring_step(enum ring_step step) {
    (void)step;
    visit();
}

/* Sleep until the word differs from `seen`. */
static void block(_Atomic uint32_t *word, uint32_t seen) {
    struct actor *actor = &world.actors[world.current];
    actor->state = BLOCKED;
    actor->watched = word;
    actor->seen = seen;
    while (!is_runnable((int)(actor - world.actors))) {
        leave();
    }
    actor->state = READY;
}

static void recycle_or_close(struct nnc_ring *ring, uint64_t seq) {
    if (seq < world.shape->batches) {
        nnc_ring_recycle(ring, seq, world.shape->batch);
    } else {
        nnc_ring_close_slot(ring, seq);
    }
}

static void check_batch(const struct nnc_batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++) {
        REQUIRE(ring_stamp_matches(batch, i, PIXEL_BYTES), "batch %u sample %u is wrong",
                (unsigned)batch->seq, i);
        REQUIRE(world.published[batch->seq][i] <= 1, "published twice");
    }
    world.delivered += batch->count;
}

static void be_trainer(void) {
    struct nnc_ring *ring = world.actors[TRAINER].ring;
    uint32_t slots = ring->geometry.slots;
    for (uint64_t seq = 0; seq < slots; seq++) {
        recycle_or_close(ring, seq);
    }
    for (uint64_t seq = 0; seq < world.shape->batches; seq++) {
        _Atomic uint32_t *word = &ring_header(ring)->ready_generation;
        uint32_t generation = atomic_load(word);
        struct nnc_batch batch;
        int code = nnc_ring_acquire(ring, seq, 0, &batch);
        while (code == -ETIMEDOUT) {
            block(word, generation);
            generation = atomic_load(word);
            code = nnc_ring_acquire(ring, seq, 0, &batch);
        }
        REQUIRE(code == 0, "%s", nnc_error_text());
        check_batch(&batch);
        nnc_ring_release(ring, seq);
        recycle_or_close(ring, seq + slots);
    }
}

static void make_sample(struct nnc_ring *ring, const struct nnc_claim *claim) {
    int *holder = &world.holder[claim->seq][claim->index];
    REQUIRE(*holder == 0, "batch %u sample %u has two owners", (unsigned)claim->seq, claim->index);
    *holder = world.current;
    uint8_t *pixels = nnc_ring_claim_pixels(ring, claim);
    ring_stamp_fill(pixels, 0, PIXEL_BYTES / 2, claim->seq, claim->index);
    visit();
    ring_stamp_fill(pixels, PIXEL_BYTES / 2, PIXEL_BYTES, claim->seq, claim->index);
    struct nnc_sample_result result = ring_stamp_result(claim->seq, claim->index);
    nnc_ring_publish(ring, claim, &result);
    *holder = 0;
    world.published[claim->seq][claim->index]++;
}

static void be_loader(void) {
    struct nnc_ring *ring = world.actors[world.current].ring;
    for (;;) {
        uint32_t generation = nnc_ring_work_generation(ring);
        struct nnc_claim claim;
        int found = nnc_ring_claim(ring, &claim);
        if (found < 0) {
            return;
        }
        if (found == 0) {
            block(&ring_header(ring)->work_generation, generation);
        } else {
            make_sample(ring, &claim);
        }
    }
}

static void be_coordinator(void) {
    struct nnc_ring *ring = world.actors[COORDINATOR].ring;
    for (uint32_t handled = 0;; handled++) {
        block(&world.dead_count, handled);
        uint32_t incarnation = world.actors[world.dead[handled]].ring->incarnation;
        unsigned freed = nnc_ring_sweep(ring, incarnation);
        REQUIRE(freed <= 1, "%u samples put back", freed);
        world.put_back += freed;
        world.actors[LOADER_3 + (int)handled].state = READY;
    }
}

static void live(void) {
    if (world.current == TRAINER) {
        be_trainer();
    } else if (world.current == COORDINATOR) {
        be_coordinator();
    } else {
        be_loader();
    }
    world.actors[world.current].state = FINISHED;
    leave();
}

/* The ring as nnc_ring_create() leaves it, and all private notes forgotten. */
static void reset_ring(void) {
    struct nnc_ring *ring = world.owner;
    struct ring_header *header = ring_header(ring);
    atomic_store(&header->work_generation, 0);
    atomic_store(&header->ready_generation, 0);
    for (uint32_t slot = 0; slot < ring->geometry.slots; slot++) {
        memset(ring_slot(ring, slot), 0, ring->layout.ctl_slot_bytes);
        atomic_store(&ring_slot(ring, slot)->seq, RING_UNUSED);
        atomic_store(&ring_slot(ring, slot)->taken, RING_UNUSED);
    }
    for (int number = 0; number < ACTORS; number++) {
        memset(world.actors[number].ring->memo, 0, sizeof(ring->memo));
        memset(world.actors[number].ring->note, 0, sizeof(ring->note));
    }
}

/* Back to the first instruction of live(). */
static void give_stack(struct actor *actor) {
    getcontext(&actor->context);
    actor->context.uc_stack.ss_sp = actor->stack;
    actor->context.uc_stack.ss_size = STACK_BYTES;
    actor->context.uc_link = NULL;
    makecontext(&actor->context, live, 0);
}

static void reset_world(void) {
    reset_ring();
    world.current = 0;
    world.switches = world.deaths = world.steps = world.decided = 0;
    world.delivered = 0;
    atomic_store(&world.dead_count, 0);
    memset(world.holder, 0, sizeof(world.holder));
    memset(world.published, 0, sizeof(world.published));
    for (int number = 0; number < ACTORS; number++) {
        struct actor *actor = &world.actors[number];
        actor->state = number >= LOADER_3 ? ASLEEP : READY;
        give_stack(actor);
    }
}

/* Who goes on when the running one cannot: the next in turn, or another one as one of the switches.
 */
static bool choose_next(void) {
    int runnable[ACTORS];
    unsigned count = list_runnable(-1, runnable);
    if (count == 0) {
        return false;
    }
    unsigned turn = 0;
    while (turn < count && runnable[turn] <= world.current) {
        turn++;
    }
    unsigned pick = decide(world.switches < world.shape->switches ? count : 1);
    world.switches += pick > 0;
    world.current = runnable[(turn + pick) % count];
    return true;
}

/* One schedule from beginning to end. */
static void run_schedule(void) {
    reset_world();
    while (choose_next()) {
        swapcontext(&world.scheduler, &world.actors[world.current].context);
    }
    for (int number = 0; number < ACTORS; number++) {
        enum actor_state state = world.actors[number].state;
        REQUIRE(number == COORDINATOR || state == FINISHED || state == DEAD || state == ASLEEP,
                "actor %d waits for ever", number);
    }
    REQUIRE(world.delivered == (uint64_t)world.shape->batch * world.shape->batches, "lost samples");
    world.schedules++;
}

static void open_world(const struct shape *shape) {
    world.shape = shape;
    signal(SIGABRT, on_abort);
    const struct nnc_ring_geometry geometry = {
        .batch = shape->batch, .slots = 2, .height = 2, .width = 3, .channels = 1};
    struct nnc_ring *made;
    cr_assert_eq(nnc_ring_create(&geometry, 0, NULL, &made), 0, "%s", nnc_error_text());
    cr_assert_eq(nnc_ring_attach(&geometry, NNC_RING_LOADER, nnc_ring_ctl_fd(made),
                                 nnc_ring_data_fd(made), 0, 99, &world.owner),
                 0, "%s", nnc_error_text());
    nnc_ring_destroy(made);
    for (int number = 0; number < ACTORS; number++) {
        enum nnc_ring_role role = number == TRAINER       ? NNC_RING_TRAINER
                                  : number == COORDINATOR ? NNC_RING_COORDINATOR
                                                          : NNC_RING_LOADER;
        struct actor *actor = &world.actors[number];
        uint32_t incarnation = role == NNC_RING_LOADER ? (uint32_t)number : 0;
        cr_assert_eq(nnc_ring_clone(world.owner, role, incarnation, &actor->ring), 0);
        actor->stack = calloc(1, STACK_BYTES);
        cr_assert_not_null(actor->stack);
    }
}

static void close_world(void) {
    for (int number = 0; number < ACTORS; number++) {
        nnc_ring_destroy(world.actors[number].ring);
        free(world.actors[number].stack);
    }
    nnc_ring_destroy(world.owner);
    memset(&world, 0, sizeof(world));
}

Test(ring_explore, every_schedule_with_few_switches_is_right, .timeout = 100) {
    static const struct shape shapes[] = {
        {"two switches", 1, 3, 2, 0, 1000},
        {"two switches, one death", 1, 3, 2, 1, 10000},
        {"one switch, two deaths", 1, 3, 1, 2, 10000},
        {"pairs, one switch, one death", 2, 3, 1, 1, 10000},
    };
    for (size_t row = 0; row < sizeof(shapes) / sizeof(shapes[0]); row++) {
        open_world(&shapes[row]);
        do {
            run_schedule();
        } while (next_path());
        cr_log_info("%s: %" PRIu64 " schedules, %" PRIu64 " deaths, %" PRIu64 " samples put back",
                    shapes[row].name, world.schedules, world.total_deaths, world.put_back);
        cr_assert_geq(world.schedules, shapes[row].least, "%s: %" PRIu64, shapes[row].name,
                      world.schedules);
        cr_assert(shapes[row].deaths == 0 || world.put_back > 0, "%s", shapes[row].name);
        close_world();
    }
}

Test(ring_explore, random_schedules_with_many_switches_are_right, .timeout = 100) {
    static const struct shape shapes[] = {
        {"singles", 1, 4, 1000, 2, 0},
        {"pairs", 2, 4, 1000, 2, 0},
    };
    for (size_t row = 0; row < sizeof(shapes) / sizeof(shapes[0]); row++) {
        open_world(&shapes[row]);
        world.is_random = true;
        while (world.schedules < 20000) {
            /* A stream for each schedule: one that fails can be run alone. */
            world.rng = nnc_rng_make(20261123, NNC_RNG_SYNTHETIC, (uint32_t)row, world.schedules);
            run_schedule();
        }
        cr_assert_geq(world.put_back, 1000, "%" PRIu64, world.put_back);
        cr_log_info("%s: %" PRIu64 " deaths, %" PRIu64 " samples put back", shapes[row].name,
                    world.total_deaths, world.put_back);
        close_world();
    }
}
