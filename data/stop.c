/* SPDX-License-Identifier: Apache-2.0 */
/* The one signal that ends a verb.
 *
 * Invariant: `asked` goes from 0 to a signal's number once; only the handler writes it. The process
 * ends by that signal and not by an exit status of ours, so that a shell's loop stops too. */
#include "data/stop.h"

#include "base/err.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t asked;

static void on_signal(int number) {
    asked = number;
}

void nnc_stop_install(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND | SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int nnc_stop_check(void) {
    int number = asked;
    return number == 0 ? 0 : nnc_fail(-NNC_E_STOPPED, "stopped by %s", strsignal(number));
}

void nnc_stop_finish(void) {
    if (asked != 0) {
        signal(asked, SIG_DFL);
        raise(asked);
    }
}
