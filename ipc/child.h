/* SPDX-License-Identifier: Apache-2.0 */
/* What every child process does: check where it came from, map what it was given, report its
 * states, beat its heart, and leave its last words where the coordinator finds them.
 *
 *   main: nnc_child_begin -> (attach) -> nnc_child_attached -> (warm up) -> nnc_child_ready
 *         -> nnc_child_wait_start -> work, nnc_child_beat often, nnc_child_poll between steps
 *         -> return nnc_child_end(child, code) */
#ifndef NNC_IPC_CHILD_H
#define NNC_IPC_CHILD_H

#include "ipc/channel.h"
#include "ipc/setup.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* What a process is doing, for the progress line and for the diagnosis of a hang. */
enum nnc_activity {
    NNC_DOING_SETUP,
    NNC_DOING_DATA, /* trainer: waiting for a batch; loader: waiting for a free slot */
    NNC_DOING_READ,
    NNC_DOING_DECODE,
    NNC_DOING_FORWARD,
    NNC_DOING_BACKWARD,
    NNC_DOING_REDUCE,
    NNC_DOING_UPDATE,
    NNC_DOING_EVAL,
    NNC_DOING_SNAPSHOT,
    NNC_DOING_SAVE,
    NNC_DOING_COUNT,
};

/* Name as printed: "data wait", "decode", ...; "unknown" for numbers that are no activity. */
const char *nnc_activity_name(enum nnc_activity activity);

/* Counters of a loader and of a trainer; each written by one process, read by the coordinator. */
enum nnc_counter {
    NNC_COUNT_SAMPLES, /* published / consumed */
    NNC_COUNT_BYTES_READ,
    NNC_COUNT_NS_READ,      /* waiting for or doing reads */
    NNC_COUNT_NS_DECODE,    /* decoding */
    NNC_COUNT_NS_TRANSFORM, /* resize, crop, flip, store */
    NNC_COUNT_NS_WAIT,      /* loader: ring full; trainer: no batch ready */
    NNC_COUNT_NS_OTHER,
    NNC_COUNT_NS_BUSY, /* trainer: computing */
    NNC_COUNT_STEP,    /* trainer: training steps done since the run's start */
    NNC_COUNT_EPOCH,
    NNC_COUNT_PHASE_SAMPLES, /* in the current phase */
    NNC_COUNT_CORRECT1,      /* in the current phase */
    NNC_COUNT_SEQ,           /* trainer: batch in hand */
    NNC_COUNT_COLLECTIVES,   /* all-reduces completed */
    NNC_COUNT_READY,         /* gradient buckets computed, ready to be reduced */
    NNC_COUNT_PSS_BYTES,     /* memory beside the rings, nnc_footprint_own(); 0: unknown */
    NNC_COUNT_MAX = 24,
};

#define NNC_PAGE_BYTES 4096

/* The page of one child: memfd at NNC_FD_PAGE. Written by the child alone. */
struct nnc_child_page {
    _Alignas(64) _Atomic uint64_t heartbeat_ns;
    _Atomic uint32_t activity;
    _Atomic uint32_t phase;
    _Atomic uint64_t hand; /* loader: phase << 32 | number of its sample, plus 1; 0: none */
    _Alignas(64) _Atomic uint64_t counter[NNC_COUNT_MAX];
    _Atomic uint64_t loss_sum_bits;          /* double, this phase */
    _Atomic uint64_t lr_bits;                /* double */
    _Alignas(64) _Atomic int32_t error_code; /* 0 until the child fails; text is complete before */
    char error_text[1024];
};
_Static_assert(sizeof(struct nnc_child_page) <= NNC_PAGE_BYTES, "child page fits one page");

struct nnc_child;

/* First call of a child's main, before any thread: block all signals, ask for SIGKILL on the
 * parent's death, map setup and page, check magic, sizes, build id, role and that the parent is
 * still there, name the log, open the channel, start the watchdog (trainer, saver), send HELLO.
 * role is the program's; a trainer also takes the setup of a saver (see setup->role). Errors:
 * -NNC_E_FORMAT not our setup, -EPIPE orphaned; print nnc_error_text() and exit with
 * nnc_error_exit_status() (there is no page yet). */
int nnc_child_begin(enum nnc_role role, struct nnc_child **ret_child);

/* The setup; stays the child's, like the two below. */
const struct nnc_setup *nnc_child_setup(const struct nnc_child *child);

/* The channel, for messages that are not below. */
struct nnc_channel *nnc_child_channel(struct nnc_child *child);

/* The page, for words that are not counters. */
struct nnc_child_page *nnc_child_page(struct nnc_child *child);

/* Report that all memory is mapped. Errors: as nnc_channel_send() with 5 s. */
int nnc_child_attached(struct nnc_child *child);

/* Report that work can start. Errors: as nnc_channel_send() with 5 s. */
int nnc_child_ready(struct nnc_child *child, const struct nnc_msg_ready *ready);

/* Block until START (0) or until the coordinator is gone or says STOP (-EPIPE). */
int nnc_child_wait_start(struct nnc_child *child);

/* The sample that this loader works on from now on, so that the coordinator knows what it died of;
 * and that it works on none. The loader's thread. */
void nnc_child_hold(struct nnc_child *child, uint32_t phase, uint64_t sample);
void nnc_child_hold_nothing(struct nnc_child *child);

/* Coordinator: the sample in the hand of a loader that was reaped. False: none. What a page says is
 * not checked. */
bool nnc_child_hand(const struct nnc_child_page *page, uint32_t *ret_phase, uint64_t *ret_sample);

/* Heartbeat: two relaxed stores. Any thread. */
void nnc_child_beat(struct nnc_child *child, enum nnc_activity activity);

/* Add to a counter. Any thread. */
void nnc_child_count(struct nnc_child *child, enum nnc_counter counter, uint64_t amount);

/* Set a counter. */
void nnc_child_set(struct nnc_child *child, enum nnc_counter counter, uint64_t value);

/* What the coordinator wants, without blocking, one order a call: 0 nothing new, or NNC_MSG_SNAP,
 * NNC_MSG_STOP; -EPIPE when it is gone. */
int nnc_child_poll(struct nnc_child *child);

/* Leave code and nnc_error_text() on the page, where the coordinator finds them. The first failure
 * stays. Before anything that lets other processes fail in consequence. */
void nnc_child_fail(struct nnc_child *child, int code);

/* nnc_child_fail() when code < 0, release everything, and return the exit status for main. Takes
 * NULL. */
int nnc_child_end(struct nnc_child *child, int code);

#endif
