/* SPDX-License-Identifier: Apache-2.0 */
/* HOST:PORT, and [IPv6]:PORT because an IPv6 address has colons of its own (RFC 3986, 3.2.2). A
 * host is checked for its characters alone: whether it exists is the resolver's to say. */
#include "base/endpoint.h"

#include "base/err.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

#define HOST_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
#define IPV6_CHARACTERS HOST_CHARACTERS ":%" /* with the zone of a link-local address */

static int fail(const char *text, const char *why) {
    char shown[80];
    nnc_text_escape(text, shown, sizeof(shown));
    return nnc_fail(-NNC_E_USAGE, "\"%s\" is no HOST:PORT: %s", shown, why);
}

/* at is behind the host: "" or ":PORT". */
static int parse_port(const char *text, const char *at, uint16_t *ret_port) {
    if (*at == '\0') {
        *ret_port = NNC_DEFAULT_PORT;
        return 0;
    }
    size_t digits = strspn(at + 1, "0123456789");
    bool is_number = *at == ':' && digits >= 1 && digits <= 5 && at[1 + digits] == '\0';
    int port = is_number ? atoi(at + 1) : 0;
    if (port < 1 || port > UINT16_MAX) {
        return fail(text, "the port is a number from 1 to 65535");
    }
    *ret_port = (uint16_t)port;
    return 0;
}

int nnc_endpoint_parse(const char *text, struct nnc_endpoint *ret_endpoint) {
    bool has_brackets = text[0] == '[';
    const char *host = text + has_brackets;
    size_t length = strspn(host, has_brackets ? IPV6_CHARACTERS : HOST_CHARACTERS);
    const char *rest = host + length;
    if (!has_brackets && strchr(text, ':') != strrchr(text, ':')) {
        return fail(text, "an IPv6 address stands in brackets, [::1]:29500");
    }
    if (has_brackets && *rest != ']') {
        return fail(text, "an IPv6 address stands in brackets, [::1]:29500");
    }
    if (length == 0 || length >= NNC_HOST_MAX || (!has_brackets && *rest != '\0' && *rest != ':')) {
        return fail(text, "the host is a name or an address");
    }
    struct nnc_endpoint endpoint = {.port = 0};
    int code = parse_port(text, rest + has_brackets, &endpoint.port);
    if (code < 0) {
        return code;
    }
    memcpy(endpoint.host, host, length);
    *ret_endpoint = endpoint;
    return 0;
}

void nnc_endpoint_print(const struct nnc_endpoint *endpoint, char ret_text[NNC_ENDPOINT_MAX]) {
    bool is_ipv6 = strchr(endpoint->host, ':') != NULL;
    snprintf(ret_text, NNC_ENDPOINT_MAX, "%s%s%s:%u", is_ipv6 ? "[" : "", endpoint->host,
             is_ipv6 ? "]" : "", (unsigned)endpoint->port);
}
