/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/meeting.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void write_secret(const char *path, char digit) {
    char digits[65];
    memset(digits, digit, 64);
    digits[64] = '\n';
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    cr_assert_eq(write(fd, digits, sizeof(digits)), sizeof(digits));
    close(fd);
}

struct meeting meeting_make(const char *scratch, const char *name, char digit) {
    struct meeting meeting;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, bytes), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    close(fd);
    snprintf(meeting.endpoint, sizeof(meeting.endpoint), "127.0.0.1:%u", ntohs(address.sin_port));
    snprintf(meeting.secret, sizeof(meeting.secret), "%s/%s", scratch, name);
    write_secret(meeting.secret, digit);
    return meeting;
}
