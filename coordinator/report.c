/* SPDX-License-Identifier: Apache-2.0 */
/* Progress comes from the pages that children write anyway: watching costs them nothing.
 *
 * Words that people grep for: epoch, img/s, loss, acc1, acc5, lr, data, eta. */
#include "coordinator/report.h"

#include "base/config.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define WINDOW_NS 2000000000ull

static double bits_to_double(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

double nnc_sums_loss(const struct nnc_phase_sums *sums) {
    return sums->count == 0 ? 0.0 : sums->loss_sum / (double)sums->count;
}

double nnc_sums_acc1(const struct nnc_phase_sums *sums) {
    return sums->count == 0 ? 0.0 : (double)sums->correct1 / (double)sums->count;
}

double nnc_sums_acc5(const struct nnc_phase_sums *sums) {
    return sums->count == 0 ? 0.0 : (double)sums->correct5 / (double)sums->count;
}

void nnc_report_init(struct nnc_report *report, const struct nnc_config *config,
                     const struct nnc_schedule *schedule, FILE *metrics) {
    *report = (struct nnc_report){
        .config = config, .schedule = schedule, .metrics = metrics, .best_acc1 = -1.0};
    const char *term = nnc_env("TERM");
    report->terminal =
        isatty(STDERR_FILENO) != 0 && (term == NULL || strcmp(term, "dumb") != 0) && !config->quiet;
}

void nnc_report_collect(struct nnc_child_page *const *pages, uint32_t count,
                        struct nnc_progress *ret_progress) {
    struct nnc_progress sum = {0};
    for (uint32_t i = 0; i < count; i++) {
        struct nnc_child_page *page = pages[i];
        /* Statistics only: values of different moments may mix, nothing depends on them. */
        uint64_t value[NNC_COUNT_MAX];
        for (int j = 0; j < NNC_COUNT_MAX; j++) {
            value[j] = atomic_load_explicit(&page->counter[j], memory_order_relaxed);
        }
        sum.samples += value[NNC_COUNT_SAMPLES];
        sum.phase_samples += value[NNC_COUNT_PHASE_SAMPLES];
        sum.correct1 += value[NNC_COUNT_CORRECT1];
        sum.wait_ns += value[NNC_COUNT_NS_WAIT] / count;
        sum.loss_sum +=
            bits_to_double(atomic_load_explicit(&page->loss_sum_bits, memory_order_relaxed));
        if (i == 0) {
            sum.phase = atomic_load_explicit(&page->phase, memory_order_relaxed);
            sum.epoch = (uint32_t)value[NNC_COUNT_EPOCH];
            sum.step = value[NNC_COUNT_STEP];
            sum.lr = bits_to_double(atomic_load_explicit(&page->lr_bits, memory_order_relaxed));
        }
    }
    *ret_progress = sum;
}

/* Rates over windows of two seconds. */
static void update_rates(struct nnc_report *report, const struct nnc_progress *progress,
                         uint64_t now_ns) {
    if (report->window_ns == 0 || progress->samples < report->window_samples) {
        report->window_ns = now_ns;
        report->window_samples = progress->samples;
        report->window_wait_ns = progress->wait_ns;
        return;
    }
    uint64_t elapsed = now_ns - report->window_ns;
    bool first = report->images_per_s <= 0.0;
    if (elapsed < WINDOW_NS && !(first && elapsed > WINDOW_NS / 8)) {
        return;
    }
    report->images_per_s =
        (double)(progress->samples - report->window_samples) / ((double)elapsed * 1e-9);
    report->wait_share = (double)(progress->wait_ns - report->window_wait_ns) / (double)elapsed;
    report->wait_share = report->wait_share < 0.0   ? 0.0
                         : report->wait_share > 1.0 ? 1.0
                                                    : report->wait_share;
    report->window_ns = now_ns;
    report->window_samples = progress->samples;
    report->window_wait_ns = progress->wait_ns;
}

/* Seconds to the end of the run at the present rate; < 0: unknown. */
static double estimate_eta(const struct nnc_report *report, const struct nnc_progress *progress) {
    if (report->images_per_s <= 0.0) {
        return -1.0;
    }
    const struct nnc_schedule *schedule = report->schedule;
    double total = 0.0;
    double batch = (double)schedule->batch * schedule->ranks;
    for (uint32_t epoch = 0; epoch < schedule->epochs; epoch++) {
        total += (double)nnc_schedule_train_steps(schedule) * batch;
        total += (double)nnc_schedule_val_steps(schedule, epoch) * batch;
    }
    double done = (double)progress->step * batch;
    for (uint32_t epoch = 0; epoch < progress->epoch; epoch++) {
        done += (double)nnc_schedule_val_steps(schedule, epoch) * batch;
    }
    return total > done ? (total - done) / report->images_per_s : 0.0;
}

static void format_eta(double seconds, char *ret_text, size_t bytes) {
    if (seconds < 0.0) {
        snprintf(ret_text, bytes, "-");
        return;
    }
    unsigned long whole = (unsigned long)seconds;
    if (whole >= 3600) {
        snprintf(ret_text, bytes, "%lu:%02lu:%02lu", whole / 3600, whole / 60 % 60, whole % 60);
    } else {
        snprintf(ret_text, bytes, "%lu:%02lu", whole / 60, whole % 60);
    }
}

double nnc_report_mfu(const struct nnc_report *report, double images_per_s) {
    bool known = report->peak_flops > 0.0 && report->sample_flops > 0.0;
    return known ? images_per_s * report->sample_flops / report->peak_flops : -1.0;
}

/* "  gpu 93% 18.2 GiB 310 W  mfu 21%", what of it is known. */
static void format_gpu(const struct nnc_report *report, bool training, char *ret_text,
                       size_t bytes) {
    const struct nnc_gpu_reading *gpu = &report->gpu;
    double mfu = training ? nnc_report_mfu(report, report->images_per_s) : -1.0;
    size_t used = 0;
    ret_text[0] = '\0';
    if (gpu->count > 0) {
        used += (size_t)snprintf(ret_text, bytes, "  gpu %.0f%% %.1f GiB %.0f W", 100.0 * gpu->busy,
                                 (double)gpu->memory_used / (1 << 30), gpu->watts);
    }
    if (mfu >= 0.0) {
        snprintf(ret_text + used, bytes - used, "  mfu %.1f%%", 100.0 * mfu);
    }
}

static void format_line(const struct nnc_report *report, const struct nnc_progress *progress,
                        char *ret_line, size_t bytes) {
    uint64_t steps = nnc_schedule_train_steps(report->schedule);
    bool training = progress->phase == NNC_PHASE_TRAIN;
    double count = progress->phase_samples == 0 ? 1.0 : (double)progress->phase_samples;
    char eta[32], gpu[80];
    format_eta(estimate_eta(report, progress), eta, sizeof(eta));
    format_gpu(report, training, gpu, sizeof(gpu));
    uint64_t in_epoch = steps == 0 ? 0 : progress->step - (uint64_t)progress->epoch * steps;
    snprintf(ret_line, bytes,
             "epoch %" PRIu32 "/%" PRIu32 " %s %" PRIu64 "/%" PRIu64
             "  %.0f img/s  loss %.4f  acc1 %.2f%%  lr %.4g  data %.0f%%%s  eta %s",
             progress->epoch + 1, report->schedule->epochs, training ? "step" : "val, step",
             in_epoch, steps, report->images_per_s, progress->loss_sum / count,
             100.0 * (double)progress->correct1 / count, progress->lr, 100.0 * report->wait_share,
             gpu, eta);
}

static unsigned terminal_columns(void) {
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        return size.ws_col;
    }
    return 80;
}

void nnc_report_clear(struct nnc_report *report) {
    if (report->line_shown) {
        fputs("\r\033[K", stderr);
        report->line_shown = false;
    }
}

void nnc_report_progress(struct nnc_report *report, const struct nnc_progress *progress,
                         uint64_t now_ns) {
    update_rates(report, progress, now_ns);
    if (report->config->quiet || report->silent || progress->samples == 0) {
        return;
    }
    char line[512];
    format_line(report, progress, line, sizeof(line));
    if (report->terminal) {
        fprintf(stderr, "\r\033[K%.*s", (int)terminal_columns() - 1, line);
        report->line_shown = true;
        return;
    }
    uint64_t every = report->config->print_freq == 0 ? UINT64_MAX : report->config->print_freq;
    if (progress->step / every > report->printed_step / every) {
        report->printed_step = progress->step;
        fprintf(stderr, "%s\n", line);
    }
}

void nnc_report_metric(struct nnc_report *report, const char *format, ...) {
    if (report->metrics == NULL) {
        return;
    }
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    fprintf(report->metrics, "{\"time\": %.3f, %s}\n",
            (double)now.tv_sec + (double)now.tv_nsec * 1e-9, text);
}

static void add_rank(struct nnc_phase_sums *sums, const struct nnc_msg_eval *message) {
    sums->phase = (enum nnc_phase)message->phase;
    sums->epoch = message->epoch;
    sums->step = message->step;
    sums->ranks++;
    sums->count += message->count;
    sums->correct1 += message->correct1;
    sums->correct5 += message->correct5;
    sums->left_out += message->left_out;
    sums->bad += message->bad;
    sums->loss_sum += message->loss_sum;
    sums->seconds = message->seconds > sums->seconds ? message->seconds : sums->seconds;
    sums->wait_seconds =
        message->wait_seconds > sums->wait_seconds ? message->wait_seconds : sums->wait_seconds;
}

/* "  (3 unreadable) (2 without a label)", or nothing. */
static void format_left_out(const struct nnc_phase_sums *sums, char *ret_text, size_t bytes) {
    uint64_t unlabelled = sums->left_out > sums->bad ? sums->left_out - sums->bad : 0;
    size_t used = 0;
    ret_text[0] = '\0';
    if (sums->bad != 0) {
        used = (size_t)snprintf(ret_text, bytes, "  (%" PRIu64 " unreadable)", sums->bad);
    }
    if (unlabelled != 0 && used < bytes) {
        snprintf(ret_text + used, bytes - used, "  (%" PRIu64 " without a label)", unlabelled);
    }
}

/* What metrics.jsonl has of GPUs, as further fields of an object; "" when nothing is known. */
static void gpu_fields(const struct nnc_report *report, bool training, double rate, char *ret_text,
                       size_t bytes) {
    const struct nnc_gpu_reading *gpu = &report->gpu;
    double mfu = training ? nnc_report_mfu(report, rate) : -1.0;
    size_t used = 0;
    ret_text[0] = '\0';
    if (gpu->count > 0) {
        used += (size_t)snprintf(ret_text, bytes,
                                 ", \"gpu.busy\": %.4g, \"gpu.memory\": %" PRIu64
                                 ", \"gpu.watts\": %.5g",
                                 gpu->busy, gpu->memory_used, gpu->watts);
    }
    if (mfu >= 0.0) {
        snprintf(ret_text + used, bytes - used, ", \"mfu\": %.4g", mfu);
    }
}

static void print_phase(struct nnc_report *report, const struct nnc_phase_sums *sums) {
    bool training = sums->phase == NNC_PHASE_TRAIN;
    double seconds = sums->seconds > 0.0 ? sums->seconds : 1e-9;
    double rate = (double)(sums->count + sums->left_out) / seconds;
    const char *name = training ? "train" : "val";
    nnc_report_clear(report);
    if (!report->config->quiet) {
        char left_out[96];
        format_left_out(sums, left_out, sizeof(left_out));
        fprintf(stderr,
                "epoch %" PRIu32 "/%" PRIu32 " %-5s loss %.4f  acc1 %.2f%%  acc5 %.2f%%  %" PRIu64
                " images  %.0f img/s  %.1f s  data %.0f%%%s\n",
                sums->epoch + 1, report->schedule->epochs, name, nnc_sums_loss(sums),
                100.0 * nnc_sums_acc1(sums), 100.0 * nnc_sums_acc5(sums), sums->count, rate,
                sums->seconds, 100.0 * sums->wait_seconds / seconds, left_out);
    }
    char gpu[160];
    gpu_fields(report, sums->phase == NNC_PHASE_TRAIN, rate, gpu, sizeof(gpu));
    char loss[32] = "null"; /* JSON has no word for what is not finite */
    if (isfinite(nnc_sums_loss(sums))) {
        snprintf(loss, sizeof(loss), "%.9g", nnc_sums_loss(sums));
    }
    nnc_report_metric(report,
                      "\"epoch\": %" PRIu32 ", \"%s.loss\": %s, \"%s.top1\": %.9g, "
                      "\"%s.top5\": %.9g, \"%s.images\": %" PRIu64 ", \"%s.total_ips\": %.6g, "
                      "\"%s.seconds\": %.6g, \"%s.data_time\": %.6g%s",
                      sums->epoch, name, loss, name, nnc_sums_acc1(sums), name, nnc_sums_acc5(sums),
                      name, sums->count, name, rate, name, sums->seconds, name, sums->wait_seconds,
                      gpu);
}

void nnc_report_restart(struct nnc_report *report) {
    memset(report->sums, 0, sizeof(report->sums));
}

bool nnc_report_phase(struct nnc_report *report, const struct nnc_msg_eval *message,
                      uint64_t now_ns) {
    (void)now_ns;
    if (message->phase > NNC_PHASE_VAL) {
        return false;
    }
    struct nnc_phase_sums *sums = &report->sums[message->phase];
    add_rank(sums, message);
    if (sums->ranks < report->schedule->ranks) {
        return false;
    }
    report->last[message->phase] = *sums;
    report->have_last[message->phase] = true;
    memset(sums, 0, sizeof(*sums));
    if (!report->silent) {
        print_phase(report, &report->last[message->phase]);
    }
    return true;
}
