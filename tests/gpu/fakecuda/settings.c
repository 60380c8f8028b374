/* SPDX-License-Identifier: Apache-2.0 */
/* The environment variable CUDA_FAKE and what it says: schedule, devices, faults.
 *
 *   CUDA_FAKE=schedule=random,seed=7,devices=2,faults=cudaMalloc:3:oom;ncclAllReduce:5:hang@1
 *
 * A fault is function:n:action[=milliseconds][@device]: the n-th call of the function, counted from
 * 1, in this process; n = 0 means each call. An unknown word ends the process: a test that asks for
 * what does not exist tests nothing. */
#include "tests/gpu/fakecuda/fakecuda.h"
#include "tests/gpu/fakecuda/testing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FAULTS_MAX = 16,
    COUNTERS_MAX = 256,
};

struct fault {
    char function[FAKE_NAME_MAX];
    uint64_t call;
    enum fake_action action;
    int64_t ms;
    int device; /* -1: any */
};

struct counter {
    char function[FAKE_NAME_MAX];
    uint64_t calls;
};

static const char *const action_names[] = {
    [FAKE_NONE] = "none",     [FAKE_OOM] = "oom",
    [FAKE_ERROR] = "error",   [FAKE_LATE] = "late",
    [FAKE_HANG] = "hang",     [FAKE_KILL] = "kill",
    [FAKE_REFUSE] = "refuse", [FAKE_NO_DEVICE] = "nodevice",
    [FAKE_REMOTE] = "remote", [FAKE_SLOW] = "slow",
    [FAKE_FAIL] = "fail",
};
_Static_assert(sizeof action_names / sizeof action_names[0] == FAKE_ACTION_COUNT,
               "a row an action");

static const char *const schedule_names[] = {
    [FAKE_EAGER] = "eager",
    [FAKE_LAZY] = "lazy",
    [FAKE_RANDOM] = "random",
};

static struct fake_settings settings;
static struct fault faults[FAULTS_MAX];
static size_t fault_count;
static struct counter counters[COUNTERS_MAX];
static uint64_t random_state;
static bool settings_read;

static void refuse(const char *what, const char *text) {
    fprintf(stderr, "fakecuda: CUDA_FAKE: %s: '%s'\n", what, text);
    abort();
}

static uint64_t number_of(const char *text) {
    char *end = NULL;
    uint64_t number = strtoull(text, &end, 10);
    if (end == text || *end) {
        refuse("not a number", text);
    }
    return number;
}

static enum fake_action action_of(const char *text) {
    for (int i = 1; i < FAKE_ACTION_COUNT; i++) {
        if (!strcmp(text, action_names[i])) {
            return (enum fake_action)i;
        }
    }
    refuse("unknown action", text);
    return FAKE_NONE;
}

static void read_fault(char *text) {
    char *at = strchr(text, '@');
    struct fault fault = {.device = -1};
    if (at) {
        *at = 0;
        fault.device = (int)number_of(at + 1);
    }
    char *call = strchr(text, ':'), *action = call ? strchr(call + 1, ':') : NULL;
    if (!action || fault_count == FAULTS_MAX) {
        refuse("not function:n:action, or too many", text);
        return;
    }
    *call = *action = 0;
    char *ms = strchr(action + 1, '=');
    if (ms) {
        *ms = 0;
        fault.ms = (int64_t)number_of(ms + 1);
    }
    snprintf(fault.function, sizeof fault.function, "%s", text);
    fault.call = number_of(call + 1);
    fault.action = action_of(action + 1);
    faults[fault_count++] = fault;
}

static void read_device(char *path) {
    char *at = strchr(path, '@');
    if (at) {
        *at = 0;
        settings.described = (int)number_of(at + 1);
    }
    FILE *file = fopen(path, "re");
    size_t got = file ? fread(settings.device_json, 1, sizeof settings.device_json - 1, file) : 0;
    settings.device_json[got] = 0;
    if (got == 0) {
        refuse("cannot read the device's description", path);
    }
    fclose(file);
}

static void read_schedule(const char *text) {
    for (int i = 0; i <= FAKE_RANDOM; i++) {
        if (!strcmp(text, schedule_names[i])) {
            settings.schedule = (enum fake_schedule)i;
            return;
        }
    }
    refuse("unknown schedule", text);
}

static void read_pair(const char *key, char *value) {
    char *save = NULL;
    if (!strcmp(key, "schedule")) {
        read_schedule(value);
    } else if (!strcmp(key, "seed")) {
        settings.seed = number_of(value);
    } else if (!strcmp(key, "devices")) {
        settings.devices = (int)number_of(value);
    } else if (!strcmp(key, "driver")) {
        settings.driver = (int)number_of(value);
    } else if (!strcmp(key, "memory_mib")) {
        settings.memory = (size_t)number_of(value) << 20;
    } else if (!strcmp(key, "device_json")) {
        read_device(value);
    } else if (!strcmp(key, "heuristic") && !strcmp(value, "none")) {
        settings.heuristic_none = true;
    } else if (!strcmp(key, "heuristic") && !strcmp(value, "plain")) {
        settings.heuristic_plain = true;
    } else if (!strcmp(key, "read_only_register")) {
        settings.read_only_register = number_of(value) != 0;
    } else if (!strcmp(key, "faults")) {
        for (char *one = strtok_r(value, ";", &save); one; one = strtok_r(NULL, ";", &save)) {
            read_fault(one);
        }
    } else {
        refuse("unknown key or value", key);
    }
}

static void read_settings(const char *text) {
    settings = (struct fake_settings){
        .devices = 1,
        .described = -1,
        .driver = -1,
        .memory = (size_t)2 << 30,
        .read_only_register = true,
    };
    settings_read = true;
    fault_count = 0;
    random_state = 0;
    memset(counters, 0, sizeof counters);
    char *copy = text ? strdup(text) : NULL, *save = NULL;
    for (char *pair = copy ? strtok_r(copy, ",", &save) : NULL; pair;
         pair = strtok_r(NULL, ",", &save)) {
        char *value = strchr(pair, '=');
        if (!value) {
            refuse("not key=value", pair);
            break;
        }
        *value = 0;
        read_pair(pair, value + 1);
    }
    if (settings.devices > FAKE_DEVICES_MAX) {
        refuse("too many devices", text);
    }
    free(copy);
}

const struct fake_settings *fake_settings(void) {
    if (!settings_read) {
        read_settings(getenv("CUDA_FAKE"));
    }
    return &settings;
}

void fakecuda_configure(const char *text) {
    fake_lock();
    read_settings(text);
    fake_unlock();
}

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
uint64_t fake_random(void) {
    if (random_state == 0) {
        random_state = fake_settings()->seed * 2 + 1;
    }
    uint64_t z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint64_t count_call(const char *function) {
    for (size_t i = 0; i < COUNTERS_MAX; i++) {
        if (counters[i].function[0] == 0) {
            snprintf(counters[i].function, sizeof counters[i].function, "%s", function);
        }
        if (!strcmp(counters[i].function, function)) {
            return ++counters[i].calls;
        }
    }
    refuse("too many functions", function);
    return 0;
}

enum fake_action fake_fault(const char *function, int device, int64_t *ret_ms) {
    fake_settings();
    if (fault_count == 0) {
        return FAKE_NONE;
    }
    uint64_t call = count_call(function);
    for (size_t i = 0; i < fault_count; i++) {
        const struct fault *fault = &faults[i];
        if (!strcmp(fault->function, function) && (fault->call == 0 || fault->call == call) &&
            (fault->device < 0 || fault->device == device)) {
            *ret_ms = fault->ms;
            return fault->action;
        }
    }
    return FAKE_NONE;
}

const char *fake_device_json(int device) {
    const struct fake_settings *now = fake_settings();
    return now->described < 0 || now->described == device ? now->device_json : "";
}

/* The value of a key in flat JSON text: what follows "key": . */
static const char *find_key(int device, const char *key) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *found = strstr(fake_device_json(device), quoted);
    found = found ? strchr(found + strlen(quoted), ':') : NULL;
    return found ? found + 1 + strspn(found + 1, " \t\n") : NULL;
}

int64_t fake_device_number(int device, const char *key, int64_t fallback) {
    const char *text = find_key(device, key);
    return text ? strtoll(text, NULL, 10) : fallback;
}

void fake_device_text(int device, const char *key, const char *fallback, size_t bytes,
                      char *ret_text) {
    const char *text = find_key(device, key);
    if (text && *text == '"') {
        snprintf(ret_text, bytes, "%.*s", (int)strcspn(text + 1, "\""), text + 1);
    } else {
        snprintf(ret_text, bytes, "%s", fallback);
    }
}
