/* SPDX-License-Identifier: Apache-2.0 */
/* The plan cache: what comes back, what must not, and files of hostile bytes. No cuDNN here. */
#include "base/err.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "gpu/plan_cache.h"
#include "tests/support/fixture.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION    91900
#define PROPERTIES "{\"deviceName\": \"one\"}"
#define FIRST_LINE (sizeof("nncoord-plans 2 ") - 1 + 2 * NNC_SHA256_HEX_BYTES)

TestSuite(plan_cache, .init = fixture_begin, .fini = fixture_end);

static const struct nnc_dnn_key key = {.op = NNC_DNN_FORWARD, .n = 32, .c = 64, .k = UINT32_MAX};
static const struct nnc_dnn_policy policy = {.workspace_cap = SIZE_MAX, .autotune = 10};

static struct nnc_plan_cache *open_for(const char *properties, uint32_t version) {
    struct nnc_plan_cache *cache = NULL;
    cr_assert_eq(nnc_plan_cache_open(fixture_path("cache/plans"), version, properties, &cache), 0);
    return cache;
}

static struct nnc_plan_cache *open_usual(void) {
    return open_for(PROPERTIES, VERSION);
}

static void put(struct nnc_plan_cache *cache, uint32_t n, const char *text) {
    struct nnc_dnn_key numbered = key;
    numbered.n = n;
    cr_assert_eq(nnc_plan_cache_put(cache, &numbered, &policy, text), 0, "%s", nnc_error_text());
}

static void save(struct nnc_plan_cache *cache) {
    cr_assert_eq(nnc_plan_cache_save(cache), 0, "%s", nnc_error_text());
    nnc_plan_cache_close(cache);
}

static const char *find(const struct nnc_plan_cache *cache, uint32_t n) {
    struct nnc_dnn_key numbered = key;
    numbered.n = n;
    return nnc_plan_cache_find(cache, &numbered, &policy);
}

/* The one file there is; valid until the eighth fixture_path(). */
static const char *only_file(void) {
    DIR *directory = opendir(fixture_path("cache/plans"));
    cr_assert_not_null(directory);
    const char *path = NULL;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (entry->d_name[0] != '.') {
            char name[300];
            snprintf(name, sizeof(name), "cache/plans/%s", entry->d_name);
            cr_assert_null(path, "more than one file");
            path = fixture_path(name);
        }
    }
    closedir(directory);
    cr_assert_not_null(path);
    return path;
}

static size_t read_only_file(char *bytes, size_t room) {
    FILE *file = fopen(only_file(), "rb");
    cr_assert_not_null(file);
    size_t size = fread(bytes, 1, room, file);
    fclose(file);
    return size;
}

static void write_only_file(const char *bytes, size_t size) {
    FILE *file = fopen(only_file(), "wb");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

Test(plan_cache, plans_come_back_from_the_file) {
    struct nnc_plan_cache *cache = open_usual();
    cr_expect_null(find(cache, 1));
    put(cache, 1, "one\nline and another\n");
    put(cache, 2, "");
    put(cache, 1, "newer");
    save(cache);
    cache = open_usual();
    cr_expect_str_eq(find(cache, 1), "newer");
    cr_expect_str_eq(find(cache, 2), "");
    cr_expect_null(find(cache, 3));
    put(cache, 3, "three");
    save(cache);
    cache = open_usual();
    cr_expect_str_eq(find(cache, 1), "newer");
    cr_expect_str_eq(find(cache, 3), "three");
    nnc_plan_cache_close(cache);
    nnc_plan_cache_close(NULL);
}

Test(plan_cache, each_policy_has_its_own_plan) {
    struct nnc_plan_cache *cache = open_usual();
    struct nnc_dnn_policy policies[4] = {policy, policy, policy, policy};
    static const char *const texts[4] = {"a", "b", "c", "d"};
    policies[1].deterministic = true;
    policies[2].workspace_cap = 0;
    policies[3].autotune = 0;
    for (int row = 0; row < 4; row++) {
        cr_expect_null(nnc_plan_cache_find(cache, &key, &policies[row]), "row %d", row);
        cr_assert_eq(nnc_plan_cache_put(cache, &key, &policies[row], texts[row]), 0);
    }
    save(cache);
    cache = open_usual();
    for (int row = 0; row < 4; row++) {
        cr_expect_str_eq(nnc_plan_cache_find(cache, &key, &policies[row]), texts[row]);
    }
    nnc_plan_cache_close(cache);
}

Test(plan_cache, another_device_or_version_does_not_see_them) {
    struct nnc_plan_cache *cache = open_usual();
    put(cache, 1, "one");
    save(cache);
    char bytes[4096];
    size_t size = read_only_file(bytes, sizeof(bytes));
    struct nnc_plan_cache *other = open_for("{\"deviceName\": \"two\"}", VERSION);
    struct nnc_plan_cache *newer = open_for(PROPERTIES, VERSION + 1);
    cr_expect_null(find(other, 1));
    cr_expect_null(find(newer, 1));
    nnc_plan_cache_close(newer);
    /* Not even when its file is put in the place of theirs. */
    remove(only_file());
    put(other, 2, "two");
    save(other);
    write_only_file(bytes, size);
    other = open_for("{\"deviceName\": \"two\"}", VERSION);
    cr_expect_null(find(other, 1));
    nnc_plan_cache_close(other);
}

Test(plan_cache, devices_of_one_kind_have_the_same_plans_wherever_they_are_plugged_in) {
    struct nnc_plan_cache *cache =
        open_for("{\"cudaDeviceId\": 0, \"pciDeviceId\": 7, \"deviceVer\": 800}", VERSION);
    put(cache, 1, "one");
    save(cache);
    cache = open_for("{\"cudaDeviceId\": 10, \"pciDeviceId\": 63, \"deviceVer\": 800}", VERSION);
    cr_expect_str_eq(find(cache, 1), "one");
    nnc_plan_cache_close(cache);
    cache = open_for("{\"cudaDeviceId\": 0, \"pciDeviceId\": 7, \"deviceVer\": 900}", VERSION);
    cr_expect_null(find(cache, 1));
    nnc_plan_cache_close(cache);
}

Test(plan_cache, bytes_go_to_another_process_of_the_same_kind_of_device_alone) {
    struct nnc_plan_cache *from = open_usual(), *same = open_usual();
    struct nnc_plan_cache *other = open_for("{\"deviceName\": \"two\"}", VERSION);
    char *content = NULL;
    size_t bytes = 0;
    put(from, 1, "one");
    put(from, 2, "");
    put(same, 1, "own");
    put(same, 3, "own");
    put(other, 1, "own");
    cr_assert_eq(nnc_plan_cache_write(from, &content, &bytes), 0);
    cr_expect_eq(nnc_plan_cache_read(other, content, bytes), -NNC_E_FORMAT);
    cr_expect_null(find(other, 1));
    cr_assert_eq(nnc_plan_cache_read(same, content, bytes), 0);
    cr_expect_str_eq(find(same, 1), "one");
    cr_expect_str_eq(find(same, 2), "");
    cr_expect_str_eq(find(same, 3), "own");
    cr_expect_eq(nnc_plan_cache_read(same, content, bytes - 1), -NNC_E_FORMAT);
    free(content);
    nnc_plan_cache_close(from);
    nnc_plan_cache_close(same);
    nnc_plan_cache_close(other);
}

Test(plan_cache, a_file_with_any_byte_changed_or_cut_is_ignored_and_replaced) {
    struct nnc_plan_cache *cache = open_usual();
    put(cache, 1, "the plan");
    save(cache);
    char bytes[4096], damaged[4096];
    size_t size = read_only_file(bytes, sizeof(bytes));
    for (size_t place = 0; place < size; place++) {
        memcpy(damaged, bytes, size);
        damaged[place] ^= 1;
        write_only_file(damaged, size);
        cache = open_usual();
        cr_assert_null(find(cache, 1), "byte %zu", place);
        nnc_plan_cache_close(cache);
        write_only_file(bytes, place);
        cache = open_usual();
        cr_assert_null(find(cache, 1), "cut at %zu", place);
        nnc_plan_cache_close(cache);
    }
    cache = open_usual();
    put(cache, 1, "again");
    save(cache);
    cache = open_usual();
    cr_expect_str_eq(find(cache, 1), "again");
    nnc_plan_cache_close(cache);
}

/* The hash of size bytes and of more. */
static void digest_of(const char *bytes, size_t size, const char *more, size_t more_size,
                      char ret_digest[NNC_SHA256_HEX_BYTES]) {
    struct nnc_sha256 *hash = NULL;
    cr_assert_eq(nnc_sha256_create(&hash), 0);
    cr_assert_eq(nnc_sha256_update(hash, bytes, size), 0);
    cr_assert_eq(nnc_sha256_update(hash, more, more_size), 0);
    cr_assert_eq(nnc_sha256_hex(hash, ret_digest), 0);
    nnc_sha256_destroy(hash);
}

/* A copy in which each # is the right hash of its line up to there and of the text that the number
 * before it makes long. Returns its size. */
static size_t sign(const char *body, size_t size, char *ret_signed, size_t room) {
    size_t used = 0;
    for (size_t place = 0; place < size; place++) {
        cr_assert_lt(used + NNC_SHA256_HEX_BYTES, room);
        if (body[place] != '#') {
            ret_signed[used++] = body[place];
            continue;
        }
        const char *line = memrchr(body, '\n', place), *number = memrchr(body, ' ', place);
        line = line != NULL ? line + 1 : body;
        while (number != NULL && number > body && number[-1] != ' ') {
            number--;
        }
        size_t rest = size - place - 1 > 0 ? size - place - 2 : 0; /* behind the newline */
        size_t bytes = number != NULL ? strtoull(number, NULL, 10) : 0;
        digest_of(line, (size_t)(body + place - line), body + size - rest,
                  bytes < rest ? bytes : rest, ret_signed + used);
        used += NNC_SHA256_HEX_BYTES - 1;
    }
    return used;
}

/* A file of this device whose hashes are right, whatever is in it. */
static void write_body(const char *body, size_t size) {
    char head[4096], digest[NNC_SHA256_HEX_BYTES], whole[2048];
    read_only_file(head, sizeof(head));
    size = sign(body, size, whole, sizeof(whole));
    digest_of(whole, size, "", 0, digest);
    memcpy(head + FIRST_LINE - NNC_SHA256_HEX_BYTES, digest, NNC_SHA256_HEX_BYTES - 1);
    memcpy(head + FIRST_LINE, whole, size);
    write_only_file(head, FIRST_LINE + size);
}

#define KEY "0 0 1 64 0 0 4294967295 0 0 0 0 0 0 "
#define CAP "18446744073709551615"

static const struct {
    const char *body;
    const char *text; /* of n = 1 afterwards; NULL: the file counts for nothing */
} bodies[] = {
    {"plan " KEY "0 " CAP " 10 4 #\ngood\n", "good"},
    {"plan " KEY "0 " CAP " 10 4 #\ngood\nplan " KEY "0 " CAP " 10 3 #\nnew\n", "new"},
    {"plan " KEY "0 " CAP " 10 4 #\ngood\nplan", NULL},
    {"plan " KEY "0 " CAP " 10 4 #\ngood", NULL},
    {"plan " KEY "0 " CAP " 10 5 #\ngood\n", NULL},
    {"plan " KEY "0 " CAP " 10 3 #\ngood\n", NULL},
    {"plan " KEY "0 " CAP " 10 18446744073709551615 #\ngood\n", NULL},
    {"plan " KEY "0 " CAP " 10 262145 #\ngood\n", NULL},
    {"plan " KEY "0 " CAP " 10 -4 #\ngood\n", NULL},
    {"plan " KEY "0 " CAP " 10\n", NULL},
    {"plan " KEY "2 " CAP " 10 4 #\ngood\n", NULL},
    {"plan " KEY "0 18446744073709551616 10 4 #\ngood\n", NULL},
    {"plan " KEY "0 " CAP " 4294967296 4 #\ngood\n", NULL},
    {"plan 0 0 1 64 0 0 4294967296 0 0 0 0 0 0 0 " CAP " 10 4 #\ngood\n", NULL},
    {"plan 0 0 1 64 0 0  0 0 0 0 0 0 0 " CAP " 10 4 #\ngood\n", NULL},
    {"plan 0 0 1 64", NULL},
    {"plan 0 0 1 64 ", NULL},
    {"plan ", NULL},
    {"plan", NULL},
    {"p", NULL},
    {"\n", NULL},
    {"", NULL},
};

Test(plan_cache, bodies_that_do_not_parse_count_for_nothing) {
    struct nnc_plan_cache *cache = open_usual();
    put(cache, 1, "the plan");
    save(cache);
    for (size_t row = 0; row < sizeof(bodies) / sizeof(bodies[0]); row++) {
        write_body(bodies[row].body, strlen(bodies[row].body));
        cache = open_usual();
        const char *text = find(cache, 1);
        cr_expect_eq(text == NULL, bodies[row].text == NULL, "row %zu", row);
        if (text != NULL && bodies[row].text != NULL) {
            cr_expect_str_eq(text, bodies[row].text, "row %zu", row);
        }
        nnc_plan_cache_close(cache);
    }
}

/* cuDNN would take them, and read and write memory of the other shape. */
Test(plan_cache, texts_that_changed_their_places_count_for_nothing) {
    struct nnc_plan_cache *cache = open_usual();
    char bytes[4096];
    put(cache, 1, "first");
    put(cache, 2, "other");
    save(cache);
    size_t size = read_only_file(bytes, sizeof(bytes) - 1);
    bytes[size] = '\0';
    for (int i = 0; i < 2; i++) {
        memcpy(strstr(bytes, "first\n"), "third\n", 6);
        memcpy(strstr(bytes, "other\n"), "first\n", 6);
        memcpy(strstr(bytes, "third\n"), "other\n", 6);
        write_body(bytes + FIRST_LINE, size - FIRST_LINE);
        cache = open_usual();
        const char *found[2] = {find(cache, 1), find(cache, 2)};
        cr_expect_eq(found[0] != NULL, i == 1, "swapped %d times", i + 1);
        cr_expect_eq(found[1] != NULL, i == 1, "swapped %d times", i + 1);
        nnc_plan_cache_close(cache);
    }
}

Test(plan_cache, the_policy_of_what_is_there_is_told) {
    struct nnc_plan_cache *cache = open_usual();
    struct nnc_dnn_policy other = policy;
    other.autotune++;
    cr_expect(nnc_plan_cache_is_under(cache, &other));
    put(cache, 1, "one");
    cr_expect(nnc_plan_cache_is_under(cache, &policy));
    cr_expect_not(nnc_plan_cache_is_under(cache, &other));
    nnc_plan_cache_close(cache);
}

Test(plan_cache, a_zero_byte_in_a_text_counts_for_nothing) {
    struct nnc_plan_cache *cache = open_usual();
    put(cache, 1, "the plan");
    save(cache);
    static const char body[] = "plan " KEY "0 " CAP " 10 4 #\ngo\0d\n";
    write_body(body, sizeof(body) - 1);
    cache = open_usual();
    cr_expect_null(find(cache, 1));
    nnc_plan_cache_close(cache);
}

/* Change up to four bytes into ones that the format gives a meaning. */
static void mutate(char *body, size_t size, struct nnc_rng *rng) {
    static const char meant[] = "0123456789 \n-plan";
    for (uint32_t changes = 1 + nnc_rng_below(rng, 4); changes > 0; changes--) {
        uint32_t place = nnc_rng_below(rng, (uint32_t)size);
        body[place] = meant[nnc_rng_below(rng, sizeof(meant) - 1)];
    }
}

/* Whatever the cache took from a file is what it takes from the file that it then writes. */
static void expect_saved_alike(struct nnc_plan_cache *cache, int round) {
    char *text = find(cache, 1) != NULL ? strdup(find(cache, 1)) : NULL;
    put(cache, 2, "another");
    save(cache);
    cache = open_usual();
    cr_assert_eq(find(cache, 1) != NULL, text != NULL, "round %d", round);
    if (text != NULL) {
        cr_assert_str_eq(find(cache, 1), text, "round %d", round);
    }
    cr_assert_str_eq(find(cache, 2), "another", "round %d", round);
    nnc_plan_cache_close(cache);
    free(text);
}

Test(plan_cache, what_a_hostile_file_leaves_can_be_saved_and_read_again, .timeout = 50) {
    static const char body[] = "plan " KEY "0 " CAP " 10 4 #\ngood\nplan " KEY "1 7 0 0 #\n\n";
    struct nnc_rng rng = nnc_rng_make(7, NNC_RNG_SYNTHETIC, 0, 0);
    struct nnc_plan_cache *cache = open_usual();
    uint32_t found = 0;
    put(cache, 1, "the plan");
    save(cache);
    for (int round = 0; round < 4000; round++) {
        char hostile[sizeof(body)];
        memcpy(hostile, body, sizeof(body));
        mutate(hostile, sizeof(body) - 1, &rng);
        write_body(hostile, sizeof(body) - 1);
        cache = open_usual();
        found += find(cache, 1) != NULL;
        /* Saving waits for the disk. */
        if (round % 1000 == 0) {
            expect_saved_alike(cache, round);
        } else {
            nnc_plan_cache_close(cache);
        }
    }
    cr_expect_gt(found, 10);
}

Test(plan_cache, the_oldest_go_when_there_are_too_many_and_too_large_ones_are_not_kept) {
    struct nnc_plan_cache *cache = open_usual();
    for (uint32_t n = 1; n <= 4097; n++) {
        put(cache, n, "plan");
    }
    cr_expect_null(find(cache, 1));
    cr_expect_not_null(find(cache, 2));
    size_t room = (256 << 10) + 2;
    char *large = malloc(room);
    memset(large, 'x', room);
    large[room - 1] = '\0';
    cr_expect_eq(nnc_plan_cache_put(cache, &key, &policy, large), -E2BIG);
    large[room - 2] = '\0';
    for (uint32_t n = 5000; n < 5064; n++) {
        put(cache, n, large);
    }
    save(cache);
    cache = open_usual();
    cr_expect_null(find(cache, 5000));
    cr_expect_not_null(find(cache, 5001));
    cr_expect_not_null(find(cache, 5063));
    cr_expect_null(find(cache, 4097));
    nnc_plan_cache_close(cache);
    free(large);
}

Test(plan_cache, without_a_directory_plans_live_as_long_as_the_process) {
    struct nnc_plan_cache *cache = NULL;
    cr_assert_eq(nnc_plan_cache_open(NULL, VERSION, PROPERTIES, &cache), 0);
    put(cache, 1, "one");
    cr_expect_str_eq(find(cache, 1), "one");
    save(cache);
    fixture_text("file", "");
    cr_assert_eq(nnc_plan_cache_open(fixture_path("file"), VERSION, PROPERTIES, &cache), 0);
    put(cache, 1, "one");
    cr_expect_lt(nnc_plan_cache_save(cache), 0);
    cr_expect_str_eq(find(cache, 1), "one");
    nnc_plan_cache_close(cache);
}
