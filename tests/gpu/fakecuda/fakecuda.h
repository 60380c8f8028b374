/* SPDX-License-Identifier: Apache-2.0 */
/* The core of the stand-in for CUDA's libraries: streams, order, memory, faults. libcudart.so.13
 * and the others that are built here are thin layers over it.
 *
 * Rules of use: everything between fake_enter() and fake_leave() runs under one lock; the functions
 * below expect it held unless they say otherwise. A violation is something that is undefined or a
 * race on a real device: it is said on stderr and aborts, see fakecuda_record_violations(). */
#ifndef NNC_TESTS_FAKECUDA_H
#define NNC_TESTS_FAKECUDA_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAKE_PRINTF(a, b) __attribute__((format(printf, a, b)))

enum {
    FAKE_ACTORS = 128, /* streams alive at a time, and the host */
    FAKE_NAME_MAX = 48,
    FAKE_DEVICES_MAX = 8,
    FAKE_ALIGN = 256, /* of cudaMalloc, and bytes of a red zone */
};

/* ---- settings (settings.c): CUDA_FAKE=key=value,key=value, see README.md ---- */

enum fake_schedule {
    FAKE_EAGER,
    FAKE_LAZY,
    FAKE_RANDOM,
};

enum fake_action {
    FAKE_NONE,
    FAKE_OOM,
    FAKE_ERROR,
    FAKE_LATE,
    FAKE_HANG,
    FAKE_KILL,
    FAKE_REFUSE,
    FAKE_NO_DEVICE,
    FAKE_REMOTE,
    FAKE_SLOW,
    FAKE_FAIL,
    FAKE_ACTION_COUNT,
};

struct fake_settings {
    enum fake_schedule schedule;
    uint64_t seed;
    int devices;
    int driver;              /* CUDA version of the driver; 0: none; -1: as the device has it */
    size_t memory;           /* bytes of the arena that all devices share */
    char device_json[4096];  /* text of the file */
    int described;           /* the device that it describes; -1: all */
    bool heuristic_none;     /* cuBLASLt offers nothing */
    bool heuristic_plain;    /* cuBLASLt offers nothing with an epilogue */
    bool read_only_register; /* cudaHostRegisterReadOnly is supported */
};

/* The settings; the environment is read at the first call. */
const struct fake_settings *fake_settings(void);

/* Count a call of the function and say what should happen to it. */
enum fake_action fake_fault(const char *function, int device, int64_t *ret_ms);

/* The next number of the seeded sequence. */
uint64_t fake_random(void);

/* The device's description; "": it is like an A100. */
const char *fake_device_json(int device);

/* A whole number or a text of the device's description; fallback where it has none. */
int64_t fake_device_number(int device, const char *key, int64_t fallback);
void fake_device_text(int device, const char *key, const char *fallback, size_t bytes,
                      char *ret_text);

/* ---- order (order.c) ---- */

struct fake_clock {
    uint64_t tick[FAKE_ACTORS]; /* [a]: so many operations of actor a happened before */
};

struct fake_range {
    const void *memory;
    size_t bytes;
    bool write;
};

/* clock = the later of both, for every actor. */
void fake_clock_join(struct fake_clock *clock, const struct fake_clock *other);

/* An operation with this clock accesses the range; its own tick is clock->tick[actor]. Unordered
 * conflicts with earlier accesses are violations that name both. */
void fake_order_access(const struct fake_clock *clock, unsigned actor, const char *name,
                       const struct fake_range *range);

/* The name of an operation not known to be over at `clock` that conflicts with the range; or NULL.
 */
const char *fake_order_conflict(const struct fake_clock *clock, const struct fake_range *range);

/* Forget accesses that happened before the clock of the host: they precede all that will come. */
void fake_order_prune(const struct fake_clock *host);

/* Forget accesses to memory that no longer is. */
void fake_order_forget(const void *memory, size_t bytes);

/* ---- memory (memory.c) ---- */

/* Device memory of so many bytes; cudaErrorMemoryAllocation when the arena has no room. */
cudaError_t fake_memory_allocate(int device, size_t bytes, void **ret_memory);
cudaError_t fake_memory_free(void *memory);

/* Pinned host memory: allocated here (memory NULL) or registered. */
cudaError_t fake_host_pin(void *memory, size_t bytes, unsigned flags, void **ret_memory);
cudaError_t fake_host_unpin(void *memory, bool allocated);

/* Whether the address is one of the device window, and whether all bytes lie in pinned memory. */
bool fake_memory_is_device(const void *memory);
bool fake_memory_is_pinned(const void *memory, size_t bytes);

/* Where the stand-in itself finds the bytes. */
void *fake_translate(const void *memory);

/* The bytes lie in one live block of the device; otherwise a violation that names the operation. */
bool fake_memory_check(const char *name, int device, const void *memory, size_t bytes);

/* The red zones of the blocks that hold memory, NULL: of all; a violation when one was written. */
void fake_memory_zones(const char *name, const void *memory);

size_t fake_memory_used(void);

/* ---- streams and events (stream.c) ---- */

/* One operation as it is handed over. The ranges are copied. */
struct fake_work {
    const char *name;
    const struct fake_range *ranges;
    size_t count;
    uint64_t (*begin)(void *closure);             /* NULL; at each queueing: a token */
    bool (*ready)(void *closure, uint64_t token); /* NULL: always; polled at the queue's head */
    void (*run)(void *closure);
    void (*done)(void *closure);      /* after the last run, or when the work is refused */
    void (*forgotten)(void *closure); /* NULL; where it was recorded: no graph of it is left */
    void *closure;
};

struct fake_mark;    /* one recording of an event */
struct fake_capture; /* capture.h */

struct CUstream_st {
    unsigned actor;
    int device;
    bool closing;
    struct fake_op *head, **tail;
    struct fake_clock clock;
    struct fake_capture *capture;
    unsigned lane; /* in the capture */
};

struct CUevent_st {
    struct fake_mark *mark; /* NULL: never recorded */
    unsigned flags;
};

struct fake_mark {
    unsigned uses;
    bool done;
    int64_t time_ns;
    struct fake_clock clock;
    cudaStream_t stream;
    struct fake_capture *capture; /* where it was recorded in one */
    unsigned number;              /* in the capture */
};

cudaError_t fake_stream_create(int device, cudaStream_t *ret_stream);
void fake_stream_destroy(cudaStream_t stream);

/* The stream itself, or the current device's default stream; NULL after a violation. */
cudaStream_t fake_stream_of(cudaStream_t stream);

/* Queue work, or put it into the stream's capture. */
cudaError_t fake_submit(cudaStream_t stream, const struct fake_work *work);

/* A fresh mark at the end of the stream, and waiting for one. */
struct fake_mark *fake_mark_record(cudaStream_t stream);
void fake_mark_wait(cudaStream_t stream, struct fake_mark *mark);
void fake_mark_release(struct fake_mark *mark); /* takes NULL */

/* Run until the stream is empty, or the mark done; the host is ordered after it then. */
void fake_stream_finish(cudaStream_t stream);
void fake_mark_finish(struct fake_mark *mark);
void fake_device_finish(void);

/* One step towards it; whether it is done. The host is ordered after it then. */
bool fake_stream_poll(cudaStream_t stream);
bool fake_mark_poll(struct fake_mark *mark);

/* What the scheduler does at any call. */
void fake_schedule(void);

/* The host's clock. */
const struct fake_clock *fake_host_clock(void);

/* Wait a moment without the lock. */
void fake_nap(void);

/* ---- calls (call.c) ---- */

/* Take the lock, let the scheduler run, apply faults and the sticky error. */
cudaError_t fake_enter(const char *function);

/* The same without the scheduler and the sticky error: for calls that only ask for an error. */
void fake_lock(void);
void fake_unlock(void);

/* Remember the error for cudaGetLastError(), release the lock. */
cudaError_t fake_leave(cudaError_t code);

/* A launch of a kernel says what went wrong by cudaGetLastError(): an error that was left there,
 * "not ready" too, is a violation. */
void fake_check_launch(const char *kernel);

/* The calling thread's last error, and forget it where asked. */
cudaError_t fake_last_error(bool clear);

/* From the fault of this call: what it asked for, once. */
enum fake_action fake_take_fault(int64_t *ret_ms);
void fake_put_fault(enum fake_action action, int64_t ms); /* for somebody else to take */

/* Every later call fails with this. */
void fake_break(cudaError_t code);
cudaError_t fake_broken(void);

/* The device that the calling thread chose. */
int fake_device(void);
void fake_device_choose(int device);

/* Something undefined: print and abort, or keep it where the tests asked so. */
void fake_violation(const char *format, ...) FAKE_PRINTF(1, 2);

#endif
