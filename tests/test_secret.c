/* SPDX-License-Identifier: Apache-2.0 */
/* The secret of a run: read from files that only their owner can read, and from descriptors. */
#include "base/err.h"
#include "ipc/secret.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGITS "00112233445566778899aabbccddeeffFFEEDDCCBBAA99887766554433221100"

static char folder[] = "/tmp/nnc-test-secret-XXXXXX";
static char path[64];

static void begin(void) {
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/secret", folder);
}

static void end(void) {
    unlink(path);
    rmdir(folder);
}

TestSuite(secret, .init = begin, .fini = end, .timeout = 30);

static void put(int fd, const char *content) {
    cr_assert_eq(write(fd, content, strlen(content)), (ssize_t)strlen(content));
}

static void put_file(const char *content, mode_t mode) {
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    put(fd, content);
    cr_assert_eq(fchmod(fd, mode), 0);
    close(fd);
}

static void expect_secret(const char *where) {
    uint8_t secret[NNC_SECRET_BYTES];
    cr_assert_eq(nnc_secret_read(where, secret), 0, "%s", nnc_error_text());
    for (unsigned i = 0; i < 16; i++) {
        cr_assert(secret[i] == 0x11 * i && secret[31 - i] == 0x11 * i);
    }
}

/* Refused, with the remedy in the text and nothing of the content. */
static void expect_refusal(const char *where, const char *remedy) {
    uint8_t secret[NNC_SECRET_BYTES], before[NNC_SECRET_BYTES];
    memset(secret, 77, sizeof(secret));
    memcpy(before, secret, sizeof(secret));
    cr_assert_eq(nnc_secret_read(where, secret), -NNC_E_USAGE);
    cr_assert_not_null(strstr(nnc_error_text(), remedy), "%s", nnc_error_text());
    cr_assert_null(strstr(nnc_error_text(), "001122"), "%s", nnc_error_text());
    cr_assert_eq(memcmp(secret, before, sizeof(secret)), 0, "outputs stay untouched");
}

Test(secret, a_private_file_with_white_space_behind_is_read) {
    static const char *contents[] = {DIGITS, DIGITS "\n", DIGITS " \t\r\n\n"};
    for (size_t row = 0; row < sizeof(contents) / sizeof(contents[0]); row++) {
        put_file(contents[row], row == 0 ? 0400 : 0600);
        expect_secret(path);
    }
}

Test(secret, a_file_that_others_may_open_is_refused) {
    for (mode_t bit = 1; bit < 0100; bit <<= 1) {
        put_file(DIGITS, 0600 | bit);
        char remedy[100];
        snprintf(remedy, sizeof(remedy), "chmod 600 %s", path);
        expect_refusal(path, remedy);
    }
}

Test(secret, a_file_of_somebody_else_is_refused) {
    if (geteuid() != 0) {
        cr_skip_test("only root can give files away");
    }
    put_file(DIGITS, 0600);
    cr_assert_eq(chown(path, 12345, 0), 0);
    expect_refusal(path, "12345");
}

Test(secret, other_contents_are_refused) {
    static const char *contents[] = {
        "", "\n", "00112233", DIGITS "0", "\n" DIGITS, DIGITS "\nx", "0x" DIGITS, DIGITS " " DIGITS,
        "001122 password",
        /* 64 characters, of which one is no digit */
        "g0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddee:f",
        DIGITS "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"
               "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"};
    for (size_t row = 0; row < sizeof(contents) / sizeof(contents[0]); row++) {
        put_file(contents[row], 0600);
        expect_refusal(path, "openssl rand -hex 32");
    }
}

Test(secret, what_is_no_file_is_refused_at_once) {
    expect_refusal(path, "openssl rand -hex 32");
    cr_assert_eq(mkfifo(path, 0600), 0);
    expect_refusal(path, "not a regular file");
    expect_refusal(folder, "not a regular file");
    expect_refusal("", "No such file");
}

Test(secret, descriptors_are_read_and_closed) {
    char where[32];
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    put(ends[1], DIGITS "\n");
    close(ends[1]);
    snprintf(where, sizeof(where), "fd:%d", ends[0]);
    expect_secret(where);
    cr_assert_eq(fcntl(ends[0], F_GETFD), -1);

    int memory = memfd_create("secret", 0);
    put(memory, DIGITS);
    lseek(memory, 0, SEEK_SET);
    snprintf(where, sizeof(where), "fd:%d", memory);
    expect_secret(where);

    put_file(DIGITS, 0600);
    snprintf(where, sizeof(where), "fd:%d", open(path, O_RDONLY));
    expect_secret(where);
}

Test(secret, a_descriptor_of_a_file_that_others_may_open_is_refused) {
    char where[32];
    put_file(DIGITS, 0644);
    snprintf(where, sizeof(where), "fd:%d", open(path, O_RDONLY));
    expect_refusal(where, "chmod 600 FILE");
}

Test(secret, the_secret_itself_is_no_place_and_is_not_repeated) {
    expect_refusal(DIGITS, "openssl rand -hex 32");
    expect_refusal("fd:" DIGITS, "openssl rand -hex 32");
    expect_refusal(DIGITS "\n", "openssl rand -hex 32");
    snprintf(path, sizeof(path), "%s/%.32s", folder, DIGITS); /* a name, for it is a path */
    put_file(DIGITS, 0600);
    expect_secret(path);
}

Test(secret, what_names_no_descriptor_is_refused) {
    static const char *names[] = {
        "fd:", "fd:x", "fd:-1", "fd: 3", "fd:3x", "fd:99999999999999999999", "fd:4294967299"};
    for (size_t row = 0; row < sizeof(names) / sizeof(names[0]); row++) {
        expect_refusal(names[row], "fd:3 would");
    }
    expect_refusal("fd:1000", "Bad file descriptor");
}
