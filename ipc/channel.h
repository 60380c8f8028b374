/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages between the coordinator and one child over a SOCK_SEQPACKET socketpair: one
 * packet a message, fixed structs, no pointers, at most NNC_MESSAGE_MAX bytes of body. */
#ifndef NNC_IPC_CHANNEL_H
#define NNC_IPC_CHANNEL_H

#include <stddef.h>
#include <stdint.h>

#define NNC_MESSAGE_MAX 4096

enum nnc_message_type {
    /* child to coordinator */
    NNC_MSG_HELLO = 1, /* struct nnc_msg_hello */
    NNC_MSG_ATTACHED,  /* no body */
    NNC_MSG_READY,     /* struct nnc_msg_ready */
    NNC_MSG_BAD,       /* struct nnc_msg_bad + text: a sample that could not be made */
    NNC_MSG_EVAL,      /* struct nnc_msg_eval: end of a training or validation phase */
    NNC_MSG_SNAPSHOT,  /* struct nnc_msg_snapshot: a half of the snapshot memfd is complete */
    NNC_MSG_SAVED,     /* struct nnc_msg_saved + path: checkpoint durable (from a saver) */
    NNC_MSG_LOGITS,    /* struct nnc_msg_logits + floats: predict */
    NNC_MSG_MEASURE,   /* no body: bench input; what follows is measured, all before was warm-up */
    NNC_MSG_COMM,      /* struct nnc_msg_comm: bench comm, from rank 0 */
    NNC_MSG_DONE,      /* struct nnc_msg_done: the schedule is finished or the stop is reached */
    /* coordinator to child */
    NNC_MSG_START = 64, /* no body: all are READY, run */
    NNC_MSG_SNAP,       /* no body: take a snapshot at the next step boundary */
    NNC_MSG_STOP,       /* no body: trainer: snapshot at the next step boundary, then DONE; loader:
                           publish what is claimed, then exit */
};

struct nnc_message_header {
    uint16_t type;
    uint16_t bytes; /* of the body */
    uint32_t generation;
    uint64_t number; /* counts from 0 in each direction */
    uint32_t sum;    /* low half of XXH3-64 over header (sum = 0) and body */
    uint32_t reserved;
};
_Static_assert(sizeof(struct nnc_message_header) == 24, "message header layout");

struct nnc_msg_hello {
    char build_id[64];
    uint32_t pid;
    uint32_t setup_bytes;
};

struct nnc_msg_ready {
    uint64_t parameters;     /* trainer: of the model */
    uint64_t snapshot_bytes; /* trainer: of one half, header included */
    uint64_t device_bytes;   /* trainer: arena, weights, gradients, optimiser */
    uint64_t sample_flops;   /* trainer: of the model's forward pass over one sample */
    uint32_t uses_uring;     /* loader */
    uint32_t reserved;
    char note[128]; /* loader: why not io_uring; trainer: backend and ISA */
};

struct nnc_msg_bad {
    uint32_t phase;        /* enum nnc_phase: which data set */
    uint32_t reason_bytes; /* text that follows */
    uint64_t sample;
};

/* Sums over this rank's share; the coordinator adds ranks up. */
struct nnc_msg_eval {
    uint32_t phase;
    uint32_t epoch;
    uint64_t step; /* training steps done in this epoch */
    uint64_t count, correct1, correct5;
    uint64_t left_out; /* samples without a label, bad ones among them */
    uint64_t bad;      /* could not be read; of a training epoch that was resumed: since then */
    double loss_sum;
    double seconds, wait_seconds; /* of the phase; waiting for data */
};

struct nnc_msg_snapshot {
    uint32_t half;
    uint32_t epoch;
    uint64_t step; /* training steps done in this epoch */
    uint64_t hash;
    uint32_t for_stop; /* answers NNC_MSG_STOP */
    uint32_t durable;  /* belongs on disk: end of an epoch that --save-every names, stop, end of the
                          run */
};

struct nnc_msg_saved {
    uint64_t step; /* global step */
    uint32_t path_bytes;
    int32_t status; /* 0 durable, < 0 failed (text instead of path) */
    double seconds;
    char weights_sha256[65]; /* of model.safetensors' tensor bytes */
    char reserved[7];
};

struct nnc_msg_logits {
    uint64_t sample;  /* in the validation index */
    uint32_t first;   /* class of the first float */
    uint32_t count;   /* floats that follow, at most 1,000 */
    uint32_t bad;     /* 1: the image could not be read, no floats */
    uint32_t classes; /* floats of the whole sample; its chunks come in order */
};

/* What a figure of bench comm is of. */
enum nnc_comm_figure {
    NNC_COMM_SUM,       /* one all-reduce of so many bytes */
    NNC_COMM_GRADIENTS, /* those of all gradients, with nothing beside them */
    NNC_COMM_ALONE,     /* a training step without them */
    NNC_COMM_TOGETHER,  /* a training step with them */
    NNC_COMM_FIGURES,
};

struct nnc_msg_comm {
    uint32_t figure; /* enum nnc_comm_figure */
    uint32_t repeats;
    uint64_t bytes; /* that each rank gives and gets; 0: ALONE */
    double seconds; /* of the slowest rank, median over the repeats */
    double spread;  /* seconds between the quartiles of the repeats */
};

struct nnc_msg_done {
    uint64_t steps;  /* training steps run by this process */
    uint64_t images; /* consumed by this process, both phases; bench input: measured ones */
    double seconds, wait_seconds;
    uint64_t warm_images;    /* bench input: consumed before the measured part */
    double utilisation;      /* bench input: busy share of a simulated device, 0..1; < 0: none */
    char weights_sha256[65]; /* of all weights and buffers in plain layout, rank 0 */
    char reserved[7];
};

struct nnc_message {
    struct nnc_message_header header;
    uint8_t body[NNC_MESSAGE_MAX];
};

struct nnc_channel;

/* Wrap one end of a SOCK_SEQPACKET socketpair; the channel closes it, unless this fails. generation
 * goes into every message sent, and received messages of an older one are dropped and counted.
 * Errors: -ENOMEM; -NNC_E_FORMAT not such a socket. */
int nnc_channel_create(int fd, uint32_t generation, struct nnc_channel **ret_channel);

/* Close the socket. Takes NULL. */
void nnc_channel_destroy(struct nnc_channel *channel);

/* The socket, for poll. */
int nnc_channel_fd(const struct nnc_channel *channel);

/* Messages of older generations dropped so far. */
uint64_t nnc_channel_dropped(const struct nnc_channel *channel);

/* Send one message. wait_ms: 0 never blocks (-EAGAIN when full), else how long a full socket may
 * hold us
 * (-ETIMEDOUT). -EPIPE: the other side is gone. -EMSGSIZE: more than NNC_MESSAGE_MAX. The body must
 * hold the type's struct (assert). */
int nnc_channel_send(struct nnc_channel *channel, enum nnc_message_type type, const void *body,
                     size_t bytes, int wait_ms);

/* As send, with the body in two parts (fixed struct, then text or floats). */
int nnc_channel_send2(struct nnc_channel *channel, enum nnc_message_type type, const void *body,
                      size_t bytes, const void *tail, size_t tail_bytes, int wait_ms);

/* Receive one message without blocking. Returns 1 with *ret_message, 0 when there is none, -EPIPE
 * at end of file, -NNC_E_FORMAT when the packet is not ours (then the sender is to be killed).
 * -NNC_E_FORMAT too: bodies shorter than their type's struct, character arrays without an ending
 * zero, and counts (reason_bytes, path_bytes, floats) beyond the body. Bytes behind the body are
 * zero, so texts at its end, if the body is shorter than NNC_MESSAGE_MAX, end there. Numbers inside
 * bodies are the caller's to check. */
int nnc_channel_receive(struct nnc_channel *channel, struct nnc_message *ret_message);

/* Make a message that goes another way, its body in two parts. Errors: as send. */
int nnc_message_make(enum nnc_message_type type, uint32_t generation, uint64_t number,
                     const void *body, size_t bytes, const void *tail, size_t tail_bytes,
                     struct nnc_message *ret_message);

/* Whether a message of `length` bytes that came another way is whole, as in receive; of numbers
 * that say when it was sent nothing is checked. Errors: -NNC_E_FORMAT. */
int nnc_message_check(const struct nnc_message *message, size_t length);

#endif
