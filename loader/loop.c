/* SPDX-License-Identifier: Apache-2.0 */
/* The loader's loop.
 *
 *   claim (earliest batch of all ranks first) -> submit reads -> a read is done -> make -> publish
 *                                    ^------------- substitute of a bad one <----------'
 *
 * 1. A claim is held from nnc_ring_claim() to nnc_ring_publish(), and each one is published exactly
 *    once, whatever happened to its sample. If we die between, the coordinator gives it to somebody
 *    else.
 * 2. Claims are taken from the ring whose last claimed batch is the oldest; among equals from the
 *    one that was served less. So no rank's batch waits while later batches of another are filled.
 * 3. New claims are taken when half of those held are done: reads go out in groups, one system call
 *    each.
 * 4. Nothing to claim: we sleep on the futexes of all rings at once, at most 100 ms, so that the
 *    channel is looked at too. Generations are read before the claims that find nothing, so no
 *    recycling between is missed.
 * 5. A bad training sample gets a substitute, drawn for its place, so that all loaders agree; a bad
 *    validation sample is published without a label. Each failed delivery is one message. A sample
 *    in quarantine is a bad one that is not even read. A slice that does not decode makes none: the
 *    whole image is read then, since the index that told the slice may be what is wrong.
 * 6. STOP means this loader alone: it claims nothing more, publishes what it holds and ends. At the
 *    end of a run the slots are closed instead.
 *
 * 7. The page names the sample in hand wherever it could kill us: the one that is parsed and made,
 *    and while we wait for reads the one that was asked for first, since all those in flight have
 *    taken at least as long as the wait.
 *
 * 8. While reads are slow (loader/ahead.h), a claim also has the kernel fetch the sample that comes
 * to the same place of the ring next. Whoever claims that one, finds it in the page cache.
 *
 * Does not: touch ring memory except through a claim's pixels; log above debug. */
#include "loader/loop.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "ipc/footprint.h"
#include "loader/ahead.h"
#include "loader/poison.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#define POLL_NS 10000000ull

enum {
    CLAIMS_MAX = NNC_READER_DEPTH_MAX,
    BAD_WAIT_MS = 5000, /* a channel full for longer belongs to a coordinator that hangs */
};

/* A claim in hand; its place in the table is the tag of its read. */
struct work {
    bool held;
    uint32_t rank;
    uint32_t attempt;     /* substitutes drawn */
    uint64_t order;       /* of its read among all reads */
    uint32_t head;        /* bytes that were read alone first; 0: none */
    uint64_t slice_first; /* of what was read behind the head; 0: the head is being read */
    struct nnc_claim claim;
    struct nnc_sampler_place place;
};

/* What is known of one rank's ring. */
struct lane {
    uint64_t seq;    /* batch of the last claim */
    uint32_t served; /* claims taken from that batch */
    bool closed;
};

struct loop {
    const struct nnc_loop_params *params;
    struct work work[CLAIMS_MAX];
    uint32_t held;
    struct lane lanes[NNC_MAX_RANKS];
    uint32_t generations[NNC_MAX_RANKS];
    uint64_t reads; /* submitted so far */
    bool leaving;   /* was told to stop */
    uint64_t next_poll_ns;
    struct nnc_footprint footprint;
    struct nnc_ahead ahead;
};

uint32_t nnc_loop_claims_max(uint32_t batch, uint32_t ranks, uint32_t loaders) {
    assert(ranks >= 1 && loaders >= 1);
    uint64_t share = (uint64_t)batch * ranks / loaders / 2;
    return share < 1 ? 1 : share > CLAIMS_MAX ? CLAIMS_MAX : (uint32_t)share;
}

/* ---- claiming ---- */

/* The open lane to try next, leaving out those in `tried`, or -1. */
static int earliest_lane(const struct loop *loop, const bool *tried) {
    int best = -1;
    for (uint32_t i = 0; i < loop->params->ranks; i++) {
        const struct lane *lane = &loop->lanes[i];
        if (lane->closed || tried[i]) {
            continue;
        }
        const struct lane *other = best < 0 ? NULL : &loop->lanes[best];
        if (other == NULL || lane->seq < other->seq ||
            (lane->seq == other->seq && lane->served < other->served)) {
            best = (int)i;
        }
    }
    return best;
}

/* Claim one sample from the earliest ring that has one. Returns 1, or 0 when none has. */
static int claim_one(struct loop *loop, uint32_t *ret_rank, struct nnc_claim *ret_claim) {
    bool tried[NNC_MAX_RANKS] = {false};
    for (;;) {
        int rank = earliest_lane(loop, tried);
        if (rank < 0) {
            return 0;
        }
        struct lane *lane = &loop->lanes[rank];
        int code = nnc_ring_claim(loop->params->rings[rank], ret_claim);
        if (code == 1) {
            lane->served = ret_claim->seq == lane->seq ? lane->served + 1 : 1;
            lane->seq = ret_claim->seq;
            *ret_rank = (uint32_t)rank;
            return 1;
        }
        tried[rank] = true;
        lane->closed = code < 0;
    }
}

static const struct nnc_index_sample *row_of(const struct loop *loop, const struct work *work) {
    const struct nnc_source *source = loop->params->sources[work->place.phase];
    return &nnc_source_index(source)->samples[work->place.sample];
}

/* Read a sample, or its head when that says which bytes are needed. */
static void submit(struct loop *loop, uint32_t tag) {
    struct work *work = &loop->work[tag];
    work->head = row_of(loop, work)->head;
    work->slice_first = 0;
    work->order = loop->reads++;
    const struct nnc_read read = {
        .tag = tag,
        .phase = work->place.phase,
        .sample = work->place.sample,
        .bytes = work->head,
    };
    nnc_reader_submit(loop->params->reader, &read);
}

/* Read all of a sample, whatever its head says. */
static void submit_whole(struct loop *loop, uint32_t tag) {
    struct work *work = &loop->work[tag];
    work->head = 0;
    work->slice_first = 0;
    const struct nnc_read read = {
        .tag = tag, .phase = work->place.phase, .sample = work->place.sample};
    nnc_reader_submit(loop->params->reader, &read);
}

/* The head is there: read the slice that it asks for, or everything when it does not tell. */
static void submit_rest(struct loop *loop, const struct nnc_read_done *done) {
    struct work *work = &loop->work[done->tag];
    const struct nnc_image_part head = {.bytes = done->bytes, .size = done->size};
    struct nnc_read read = {
        .tag = done->tag,
        .phase = work->place.phase,
        .sample = work->place.sample,
    };
    struct nnc_image_range range;
    uint32_t total = row_of(loop, work)->size;
    if (nnc_maker_find_slice(loop->params->maker, &work->place, &head, total, &range) == 1) {
        read.first = (uint32_t)range.first;
        read.bytes = (uint32_t)range.bytes;
        read.keep = work->head;
        work->slice_first = range.first;
        nnc_reader_submit(loop->params->reader, &read);
    } else {
        submit_whole(loop, done->tag);
    }
}

static uint32_t free_tag(const struct loop *loop) {
    uint32_t tag = 0;
    while (loop->work[tag].held) {
        tag++;
    }
    assert(tag < loop->params->claims_max);
    return tag;
}

static void publish(struct loop *loop, uint32_t tag, enum nnc_sample_status status) {
    const struct nnc_loop_params *params = loop->params;
    struct work *work = &loop->work[tag];
    const struct nnc_index *index = nnc_source_index(params->sources[work->place.phase]);
    const struct nnc_sample_result result = {
        .status = status,
        .label = status == NNC_SAMPLE_BAD ? -1 : index->samples[work->place.sample].label,
        .sample = (uint32_t)work->place.sample,
    };
    nnc_ring_publish(params->rings[work->rank], &work->claim, &result);
    nnc_child_count(params->child, NNC_COUNT_SAMPLES, 1);
    work->held = false;
    loop->held--;
}

/* No sample could be made for this place. */
static void give_up(struct loop *loop, uint32_t tag) {
    struct work *work = &loop->work[tag];
    uint8_t *pixels = nnc_ring_claim_pixels(loop->params->rings[work->rank], &work->claim);
    nnc_maker_grey(loop->params->maker, work->place.phase, pixels);
    publish(loop, tag, NNC_SAMPLE_BAD);
}

static bool is_quarantined(const struct loop *loop, const struct work *work) {
    return nnc_quarantine_has(loop->params->quarantine, work->place.phase, work->place.sample);
}

/* Ask for the sample of this place, or for the first substitute that is not in quarantine. The
 * coordinator has reported those that are. */
static void begin(struct loop *loop, uint32_t tag) {
    struct work *work = &loop->work[tag];
    while (is_quarantined(loop, work)) {
        if (!nnc_sampler_replace(&loop->params->sampler, &work->attempt, &work->place)) {
            give_up(loop, tag);
            return;
        }
    }
    submit(loop, tag);
}

/* Advise the kernel to fetch the sample that will be in the claim's place one ring later. */
static void fetch_ahead(struct loop *loop, const struct work *work) {
    const struct nnc_loop_params *params = loop->params;
    struct nnc_claim later = work->claim;
    struct nnc_sampler_place place;
    later.seq += params->ahead;
    if (!nnc_ahead_claim(&loop->ahead) ||
        nnc_sampler_locate(&params->sampler, work->rank, &later, &place) < 0) {
        return; /* behind the last batch, or the place of a short one */
    }
    const struct nnc_source *source = params->sources[place.phase];
    if (source != NULL && place.sample < nnc_source_index(source)->header->samples) {
        nnc_reader_advise(params->reader, place.phase, place.sample);
    }
}

/* Claim and submit until the table is full or nothing can be claimed. */
static int fill(struct loop *loop) {
    const struct nnc_loop_params *params = loop->params;
    while (loop->held < params->claims_max) {
        struct work work = {.held = true};
        if (claim_one(loop, &work.rank, &work.claim) == 0) {
            return 0;
        }
        int code = nnc_sampler_locate(&params->sampler, work.rank, &work.claim, &work.place);
        if (code < 0) {
            return code;
        }
        const struct nnc_source *source = params->sources[work.place.phase];
        if (source == NULL || work.place.sample >= nnc_source_index(source)->header->samples) {
            return nnc_fail(-NNC_E_FORMAT, "the schedule asks for sample %llu, which no index has",
                            (unsigned long long)work.place.sample);
        }
        uint32_t tag = free_tag(loop);
        loop->work[tag] = work;
        loop->held++;
        begin(loop, tag);
        fetch_ahead(loop, &work);
    }
    return 0;
}

/* ---- results ---- */

static int report_bad(struct loop *loop, const struct work *work) {
    const char *reason = nnc_error_text();
    const struct nnc_msg_bad bad = {
        .phase = (uint32_t)work->place.phase,
        .reason_bytes = (uint32_t)strlen(reason),
        .sample = work->place.sample,
    };
    nnc_log(NNC_LOG_DEBUG, "sample %llu of phase %u is bad: %s", (unsigned long long)bad.sample,
            bad.phase, reason);
    int code = nnc_channel_send2(nnc_child_channel(loop->params->child), NNC_MSG_BAD, &bad,
                                 sizeof(bad), reason, bad.reason_bytes, BAD_WAIT_MS);
    return code == -EPIPE ? code : 0;
}

/* The sample in hand cannot be made: try another in its place, or give the place up. */
static int replace_bad(struct loop *loop, uint32_t tag) {
    struct work *work = &loop->work[tag];
    int code = report_bad(loop, work);
    if (code < 0) {
        return code;
    }
    if (nnc_sampler_replace(&loop->params->sampler, &work->attempt, &work->place)) {
        begin(loop, tag);
        return 0;
    }
    give_up(loop, tag);
    return 0;
}

static int make(struct loop *loop, const struct work *work, const struct nnc_read_done *done) {
    const struct nnc_loop_params *params = loop->params;
    const struct nnc_index *index = nnc_source_index(params->sources[work->place.phase]);
    uint8_t *pixels = nnc_ring_claim_pixels(params->rings[work->rank], &work->claim);
    const struct nnc_image_slice slice = {
        .rest = {.bytes = done->bytes, .size = done->size, .first = work->slice_first},
        .total = row_of(loop, work)->size,
    };
    const struct nnc_maker_bytes bytes = {
        .bytes = done->kept != NULL ? done->kept : done->bytes,
        .size = done->kept != NULL ? done->kept_size : done->size,
        .slice = done->kept != NULL ? &slice : NULL,
    };
    nnc_child_beat(params->child, NNC_DOING_DECODE);
    loader_poison(bytes.bytes, bytes.size);
    int code = nnc_maker_make(params->maker, index->header, &work->place, &bytes, pixels);
    struct nnc_maker_cost cost = nnc_maker_cost(params->maker);
    nnc_child_count(params->child, NNC_COUNT_BYTES_READ, done->size + done->kept_size);
    nnc_child_count(params->child, NNC_COUNT_NS_DECODE, cost.decode_ns);
    nnc_child_count(params->child, NNC_COUNT_NS_TRANSFORM, cost.transform_ns);
    return code;
}

static int finish_read(struct loop *loop, const struct nnc_read_done *done) {
    struct work *work = &loop->work[done->tag];
    assert(done->tag < loop->params->claims_max && work->held);
    if (is_quarantined(loop, work)) { /* since it was asked for */
        begin(loop, done->tag);
        return 0;
    }
    nnc_child_hold(loop->params->child, work->place.phase, work->place.sample);
    if (done->code >= 0 && work->head != 0 && work->slice_first == 0) {
        submit_rest(loop, done);
        return 0;
    }
    int code = done->code < 0 ? done->code : make(loop, work, done);
    if (code == -NNC_E_FORMAT && done->code >= 0 && work->head != 0) {
        nnc_log(NNC_LOG_DEBUG, "sample %llu of phase %u: its slice is bad (%s), reading all of it",
                (unsigned long long)work->place.sample, (unsigned)work->place.phase,
                nnc_error_text());
        submit_whole(loop, done->tag);
        return 0;
    }
    if (code < 0) {
        return replace_bad(loop, done->tag);
    }
    publish(loop, done->tag, work->attempt == 0 ? NNC_SAMPLE_OK : NNC_SAMPLE_REPLACED);
    return 0;
}

/* ---- waiting ---- */

static bool all_closed(const struct loop *loop) {
    for (uint32_t i = 0; i < loop->params->ranks; i++) {
        if (!loop->lanes[i].closed) {
            return false;
        }
    }
    return true;
}

/* Sleep until a slot may have been recycled since the generations were read. */
static void wait_for_work(struct loop *loop) {
    const struct nnc_loop_params *params = loop->params;
    uint64_t start = nnc_clock_ns();
    nnc_child_beat(params->child, NNC_DOING_DATA);
    nnc_ring_wait_any(params->rings, loop->generations, params->ranks);
    nnc_child_count(params->child, NNC_COUNT_NS_WAIT, nnc_clock_ns() - start);
}

/* Look at the channel now and then. -EPIPE when the coordinator is gone. */
static int poll_coordinator(struct loop *loop) {
    uint64_t now = nnc_clock_ns();
    if (now < loop->next_poll_ns) {
        return 0;
    }
    loop->next_poll_ns = now + POLL_NS;
    nnc_child_set(loop->params->child, NNC_COUNT_PSS_BYTES, nnc_footprint_own(&loop->footprint));
    int code = nnc_child_poll(loop->params->child);
    loop->leaving = loop->leaving || code == NNC_MSG_STOP;
    return code < 0 ? code : 0;
}

/* Name the sample whose read is the oldest. */
static void hold_oldest(struct loop *loop) {
    const struct work *oldest = NULL;
    for (uint32_t tag = 0; tag < loop->params->claims_max; tag++) {
        const struct work *work = &loop->work[tag];
        if (work->held && (oldest == NULL || work->order < oldest->order)) {
            oldest = work;
        }
    }
    nnc_child_hold(loop->params->child, oldest->place.phase, oldest->place.sample);
}

/* How often this process gave its CPU up to wait for something. */
static uint64_t count_sleeps(void) {
    struct rusage usage = {0};
    getrusage(RUSAGE_THREAD, &usage);
    return (uint64_t)usage.ru_nvcsw;
}

static int wait_for_read(struct loop *loop) {
    uint64_t start = nnc_clock_ns();
    nnc_child_beat(loop->params->child, NNC_DOING_READ);
    hold_oldest(loop);
    struct nnc_read_done done;
    int code = nnc_reader_wait(loop->params->reader, &done);
    uint64_t now = nnc_clock_ns();
    nnc_child_count(loop->params->child, NNC_COUNT_NS_READ, now - start);
    if (nnc_ahead_waited(&loop->ahead, now - start) &&
        nnc_ahead_judge(&loop->ahead, now, count_sleeps())) {
        nnc_log(NNC_LOG_DEBUG, "reads are slow: fetching one ring ahead");
    }
    if (code <= 0) {
        assert(code < 0); /* a held claim always has a read in flight */
        return code;
    }
    nnc_child_hold_nothing(loop->params->child);
    code = finish_read(loop, &done);
    nnc_child_hold_nothing(loop->params->child);
    return code;
}

/* One turn: claim if few are held, then finish one read or wait. Returns 1 at the end. */
static int turn(struct loop *loop) {
    int code = poll_coordinator(loop);
    if (code >= 0 && !loop->leaving && loop->held <= loop->params->claims_max / 2) {
        for (uint32_t i = 0; i < loop->params->ranks; i++) {
            loop->generations[i] = nnc_ring_work_generation(loop->params->rings[i]);
        }
        code = fill(loop);
    }
    if (code < 0) {
        return code;
    }
    if (loop->held > 0) {
        return wait_for_read(loop);
    }
    if (loop->leaving || all_closed(loop)) {
        return 1;
    }
    wait_for_work(loop);
    return 0;
}

int nnc_loop_run(const struct nnc_loop_params *params) {
    assert(params->claims_max >= 1 && params->claims_max <= CLAIMS_MAX);
    assert(params->ranks >= 1 && params->ranks <= NNC_MAX_RANKS);
    struct loop loop = {.params = params};
    int code = 0;
    while (code == 0) {
        code = turn(&loop);
    }
    return code == -EPIPE || code > 0 ? 0 : code;
}
