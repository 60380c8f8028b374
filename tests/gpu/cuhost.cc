/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler of the host build; see cuhost.h.
 *
 * A block runs in rounds. In each round every thread that can run does so until it finishes or
 * parks; then whole shuffles are resolved, or else the barrier; what they free runs next round.
 *
 *   worker fiber:  takes the next thread that has not begun, runs it to its end, takes the next
 *   thread parks:  its worker keeps its stack; the scheduler makes a new worker for the rest
 *
 * 1. A kernel that never parks costs one switch a block, whatever its number of threads.
 * 2. A switch saves the six registers that the x86-64 ABI preserves; elsewhere ucontext does it.
 * 3. Barriers get their numbers by (kernel, file, line) in order of discovery. */
#include "tests/gpu/cuhost_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define CUHOST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUHOST_ASAN 1
#endif
#endif
#ifndef CUHOST_ASAN
#define CUHOST_ASAN 0
#endif
#if CUHOST_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifndef CUHOST_UCONTEXT
#ifdef __x86_64__
#define CUHOST_UCONTEXT 0
#else
#define CUHOST_UCONTEXT 1
#endif
#endif
#if CUHOST_UCONTEXT
#include <ucontext.h>
#endif

namespace {

constexpr size_t stack_bytes = 256 * 1024; /* sanitizers make frames large; pages come on use */
constexpr unsigned warp_size = 32;

enum class state {
    fresh,
    ready,
    at_barrier,
    at_shuffle,
    done
};

#if !CUHOST_UCONTEXT
using context = void *; /* the stack pointer; registers lie there */
extern "C" void cuhost_switch(context *save, context load);
asm(R"(
.text
.type cuhost_switch, @function
cuhost_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuhost_switch, .-cuhost_switch
)");
#else
using context = ucontext_t;
#endif

struct fiber {
    context at;
    char *stack;
    void *fake_stack; /* AddressSanitizer's */
};

struct thread {
    uint3 index;
    enum state state;
    fiber *on; /* its worker, while parked */
    size_t barrier;
    unsigned mask, source;
    uint64_t bits; /* into the shuffle, and out of it */
};

struct grid_run {
    const char *name;
    void (*body)(void *);
    void *context;
    unsigned count; /* threads of a block */
    uint64_t block; /* serial number over all launches */
};

grid_run run;
std::vector<thread> threads;
std::vector<unsigned> order; /* of threads */
size_t next_fresh;           /* in order: the first that may not have begun */
unsigned current;
std::deque<fiber> fibers; /* all of them; they keep their places */
std::vector<fiber *> idle;
fiber *worker; /* that runs */
fiber scheduler;
const void *scheduler_stack;
size_t scheduler_stack_bytes;

enum cuhost_order schedule = CUHOST_FORWARD;
std::mt19937_64 shuffler;
std::vector<cuhost_barrier> barriers;
long dropped = -1;
std::vector<cuhost_range> declared;

[[noreturn]] void die(const char *what) {
    fprintf(stderr, "cuhost: %s, block (%u,%u,%u): %s\n", run.name, cuhost::block_index.x,
            cuhost::block_index.y, cuhost::block_index.z, what);
    abort();
}

/* Switch stacks. AddressSanitizer has to know where the next one lies. */
void switch_to(fiber *from, fiber *to, const void *stack, size_t bytes) {
#if CUHOST_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, stack, bytes);
#else
    (void)stack;
    (void)bytes;
#endif
#if !CUHOST_UCONTEXT
    cuhost_switch(&from->at, to->at);
#else
    swapcontext(&from->at, &to->at);
#endif
#if CUHOST_ASAN
    const void *old_stack;
    size_t old_bytes;
    __sanitizer_finish_switch_fiber(from->fake_stack, &old_stack, &old_bytes);
    if (from != &scheduler) {
        scheduler_stack = old_stack;
        scheduler_stack_bytes = old_bytes;
    }
#endif
}

void to_scheduler(fiber *from) {
    switch_to(from, &scheduler, scheduler_stack, scheduler_stack_bytes);
}

void select_thread(unsigned number) {
    current = number;
    cuhost::thread_index = threads[number].index;
}

/* The life of a worker: threads, one after the other, and again when the scheduler has more. */
[[noreturn]] void work() {
#if CUHOST_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
    for (;;) {
        while (next_fresh < order.size()) {
            select_thread(order[next_fresh++]);
            run.body(run.context);
            threads[current].state = state::done;
        }
        fiber *self = worker;
        idle.push_back(self);
        to_scheduler(self);
    }
}

fiber *make_fiber() {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = mmap(nullptr, stack_bytes + page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE)) {
        die("no memory for stacks");
    }
    fiber *made = &fibers.emplace_back();
    made->stack = static_cast<char *>(memory) + page;
#if !CUHOST_UCONTEXT
    /* Six registers, the address to return to, and a null one where work() expects its own: this
     * also gives the alignment that the ABI asks of a called function. */
    auto **top = reinterpret_cast<void **>(made->stack + stack_bytes) - 8;
    memset(static_cast<void *>(top), 0, 8 * sizeof(*top));
    top[6] = reinterpret_cast<void *>(work);
    made->at = top;
#else
    getcontext(&made->at);
    made->at.uc_stack.ss_sp = made->stack;
    made->at.uc_stack.ss_size = stack_bytes;
    makecontext(&made->at, reinterpret_cast<void (*)()>(work), 0);
#endif
    return made;
}

fiber *take_fiber() {
    if (idle.empty()) {
        return make_fiber();
    }
    fiber *taken = idle.back();
    idle.pop_back();
    return taken;
}

void resume(fiber *on) {
    worker = on;
    switch_to(&scheduler, on, on->stack, stack_bytes);
}

void park(enum state why) {
    thread *self = &threads[current];
    self->state = why;
    self->on = worker;
    to_scheduler(worker);
}

/* An order of the program's choice; random ones differ each time. */
template <typename T> void arrange(std::vector<T> &places) {
    for (size_t place = 0; place < places.size(); place++) {
        places[place] = static_cast<T>(place);
    }
    if (schedule == CUHOST_REVERSE) {
        std::reverse(places.begin(), places.end());
    } else if (schedule == CUHOST_RANDOM) {
        std::shuffle(places.begin(), places.end(), shuffler);
    }
}

/* Let go the lanes of warp [first, end) that wait for each other. */
bool resolve_shuffle(unsigned first, unsigned end) {
    unsigned waiting = 0;
    unsigned gone = 0;
    unsigned mask = 0;
    for (unsigned number = first; number < end; number++) {
        bool here = threads[number].state == state::at_shuffle;
        waiting |= (unsigned)here << (number - first);
        gone |= (unsigned)(threads[number].state == state::done) << (number - first);
        mask = here ? threads[number].mask : mask;
    }
    if (!waiting) {
        return false;
    }
    if (mask & gone || (end - first < warp_size && mask >> (end - first))) {
        die("a lane in the mask of a shuffle has exited");
    }
    if ((mask & waiting) != mask) {
        return false; /* the others may come after a barrier: only if not, it is a deadlock */
    }
    uint64_t bits[warp_size];
    for (unsigned number = first; number < end; number++) {
        bits[number - first] = threads[number].bits;
        if (threads[number].state == state::at_shuffle && threads[number].mask != mask) {
            die("lanes of one shuffle name different masks");
        }
    }
    for (unsigned number = first; number < end; number++) {
        thread *self = &threads[number];
        if (self->state == state::at_shuffle) {
            if (!(mask >> self->source & 1)) {
                die("a shuffle reads a lane outside its mask");
            }
            self->bits = bits[self->source];
            self->state = state::ready;
        }
    }
    return true;
}

void resolve_barrier() {
    const thread *first = nullptr;
    for (const thread &self : threads) {
        if (self.state == state::at_shuffle) {
            die("a shuffle waits for a lane that waits at a barrier");
        }
        if (self.state == state::at_barrier) {
            first = first ? first : &self;
            if (self.barrier != first->barrier) {
                die("threads of one block wait at different __syncthreads()");
            }
        }
    }
    for (thread &self : threads) {
        if (first && self.state == state::done) {
            die("__syncthreads() that a thread of the block never reaches");
        }
        self.state = first ? state::ready : self.state;
    }
}

/* Run until every thread is done or parked; whether any is parked. */
bool run_round() {
    for (unsigned number : order) {
        if (threads[number].state == state::ready) {
            select_thread(number);
            resume(threads[number].on);
        }
    }
    while (next_fresh < order.size()) {
        resume(take_fiber());
    }
    return std::any_of(threads.begin(), threads.end(),
                       [](const thread &self) { return self.state != state::done; });
}

void run_block() {
    run.block++;
    next_fresh = 0;
    arrange(order);
    for (unsigned number = 0; number < run.count; number++) {
        const dim3 &size = cuhost::block_size;
        threads[number] = thread{};
        threads[number].index =
            uint3{number % size.x, number / size.x % size.y, number / size.x / size.y};
    }
    while (run_round()) {
        bool any = false;
        for (unsigned first = 0; first < run.count; first += warp_size) {
            any |= resolve_shuffle(first, std::min(first + warp_size, run.count));
        }
        if (!any) {
            resolve_barrier();
        }
        arrange(order);
    }
}

size_t barrier_number(const char *file, int line) {
    for (size_t number = 0; number < barriers.size(); number++) {
        const cuhost_barrier &known = barriers[number];
        if (known.line == line && !strcmp(known.kernel, run.name) && !strcmp(known.file, file)) {
            return number;
        }
    }
    barriers.push_back({run.name, file, line});
    return barriers.size() - 1;
}

} // namespace

namespace cuhost {

uint3 thread_index, block_index;
dim3 block_size, grid_size;

unsigned lane() {
    return current % warp_size;
}

void run_grid(const char *name, dim3 grid, dim3 block, void (*body)(void *), void *context) {
    run.name = name;
    run.body = body;
    run.context = context;
    run.count = block.x * block.y * block.z;
    block_size = block;
    grid_size = grid;
    size_t blocks = (size_t)grid.x * grid.y * grid.z;
    if (run.count == 0 || run.count > 1024 || blocks == 0) {
        die("a launch of no threads, or of too many");
    }
    threads.resize(run.count);
    order.resize(run.count);
    std::vector<size_t> places(blocks);
    arrange(places);
    for (size_t place : places) {
        block_index = uint3{(unsigned)(place % grid.x), (unsigned)(place / grid.x % grid.y),
                            (unsigned)(place / grid.x / grid.y)};
        run_block();
    }
}

void barrier(const char *file, int line) {
    size_t number = barrier_number(file, line);
    if ((long)number != dropped) {
        threads[current].barrier = number;
        park(state::at_barrier);
    }
}

uint64_t shuffle(unsigned mask, uint64_t bits, unsigned source_lane) {
    if (!(mask >> lane() & 1)) {
        die("a shuffle by a lane outside its mask");
    }
    threads[current].mask = mask;
    threads[current].bits = bits;
    threads[current].source = source_lane;
    park(state::at_shuffle);
    return threads[current].bits;
}

void shared(void *start, size_t bytes, uint64_t *filled_for) {
    if (*filled_for != run.block) {
        memset(start, 0xff, bytes);
        *filled_for = run.block;
    }
}

void declare(const void *start, size_t bytes, bool write) {
    if (start && bytes) {
        declared.push_back({start, bytes, write});
    }
}

void submit(void *stream, void (*function)(void *), void *closure) {
    std::vector<cuhost_range> ranges;
    ranges.swap(declared);
    cuhost_submit(stream, ranges.data(), ranges.size(), function, closure);
}

} // namespace cuhost

const char *cuhost_name(const void *closure) {
    return *static_cast<const char *const *>(closure);
}

void cuhost_set_schedule(enum cuhost_order chosen, uint64_t seed) {
    schedule = chosen;
    shuffler.seed(seed);
}

size_t cuhost_barrier_count(void) {
    return barriers.size();
}

struct cuhost_barrier cuhost_barrier_at(size_t number) {
    return barriers[number];
}

void cuhost_drop_barrier(long number) {
    dropped = number;
}
