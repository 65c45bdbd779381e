/* The one program of the worker machines' containers, linked statically and therefore an image by itself.
 *
 *   work pause         what holds a pod's namespaces: ends at SIGTERM, at once
 *   work for SECONDS   works until SIGTERM and then finishes what it does, which takes SECONDS; ends with 0
 *   work deaf          takes no notice of SIGTERM
 *   work check         ends with 0 at once: a probe
 *
 * What it did is its termination message, which the kubelet puts into the pod's status. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t told;

static void on_signal(int number) {
    (void)number;
    told = 1;
}

static void say(const char *text) {
    int file = open("/dev/termination-log", O_WRONLY | O_TRUNC);
    if (file >= 0) {
        if (write(file, text, strlen(text)) < 0) perror("termination-log");
        close(file);
    }
    puts(text);
    fflush(stdout);
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "pause";
    if (!strcmp(what, "check")) return 0;
    struct sigaction action = {.sa_handler = strcmp(what, "deaf") ? on_signal : SIG_IGN};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigset_t signals, before;
    sigaction(SIGCHLD, &ignore, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    /* Blocked but while it waits: a signal between the look and the wait would be lost. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, &before);
    if (strcmp(what, "pause")) say("working");
    while (!told) sigsuspend(&before);
    if (!strcmp(what, "for") && count > 2) {
        struct timespec left = {.tv_sec = atoi(words[2])};
        while (nanosleep(&left, &left) != 0) {}
        say("finished its work");
    }
    return 0;
}
