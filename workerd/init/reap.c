/* The life of PID 1: it moves output, hands signals on, reaps, and when the command
 * has ended kills what is left, drains, and writes the exit record.
 *
 * Orders come as 8-byte messages through the control FIFO, which any later daemon can
 * open again by its name.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "init.h"

struct life {
    const struct plan *plan;
    struct output *out;
    pid_t command;
    bool ended;
    int code, status;
    uint64_t started_mono;
    struct exit_times times;
};

static void note_end(struct life *life, const siginfo_t *info) {
    life->ended = true;
    life->code = info->si_code;
    life->status = info->si_status;
    life->times.finished_ns = clock_ns(CLOCK_REALTIME);
    life->times.duration_ns = clock_ns(CLOCK_MONOTONIC) - life->started_mono;
}

/* Reaps all that is dead; with `wait`, until no child is left. Whether one is. */
static bool reap_children(struct life *life, bool wait) {
    for (;;) {
        siginfo_t info = {0};
        if (waitid(P_ALL, 0, &info, WEXITED | __WALL | (wait ? 0 : WNOHANG)) < 0) {
            if (errno != ECHILD)
                continue;
            return false;
        }
        if (info.si_pid == 0)
            return true;
        if (info.si_pid == life->command && !life->ended)
            note_end(life, &info);
    }
}

static void obey(struct life *life) {
    struct order order;
    while (read(life->plan->control_fd, &order, sizeof order) == sizeof order) {
        if (order.kind == ORDER_WINDOW)
            tty_resize(order.argument);
        if (order.signal < 1 || order.signal > 64)
            continue;
        if (order.kind == ORDER_SIGNAL && !life->ended)
            kill(life->command, order.signal); /* not reaped yet, so the pid is still its own */
        else if (order.kind == ORDER_SIGNAL_ALL)
            kill(-1, order.signal);
    }
}

static void take_signals(struct life *life, int signals) {
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == sizeof info)
        ;
    reap_children(life, false);
}

int open_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        fail("signalfd", "");
    return fd;
}

static void wait_for_end(struct life *life, int signals) {
    while (!life->ended) {
        struct pollfd fds[6] = {
            {.fd = signals, .events = POLLIN},
            {.fd = life->plan->control_fd, .events = POLLIN},
            {.fd = life->out->pipes[0], .events = POLLIN},
            {.fd = life->out->pipes[1], .events = POLLIN},
        };
        tty_poll(fds + 4);
        if (poll(fds, 6, -1) < 0)
            continue;
        tty_serve(fds + 4, life->out);
        for (int which = 0; which < 2; which++)
            if (fds[2 + which].revents != 0)
                output_move(life->out, which);
        if (fds[1].revents != 0)
            obey(life);
        if (fds[0].revents != 0)
            take_signals(life, signals);
    }
}

/* Orphans become children of ours, so without one nobody of the command's is alive, and
 * kill(-1), which looks at every process of the machine, has nobody to find but those who
 * joined (enter.c). They are children of others: neither waited for here nor dead for
 * certain when the kill is sent, and the kernel kills them as we exit, before our end is
 * told (zap_pid_ns_processes). What one writes meanwhile into a pipe that the job handed
 * it is drained or not, as ever. A terminal is read until nobody writes to it any more,
 * though, and whoever joined may. */
static void kill_others(struct life *life) {
    if (!reap_children(life, false) && life->plan->tty_fd < 0)
        return;
    kill(-1, SIGKILL);
    reap_children(life, true);
}

_Noreturn void reap_forever(const struct plan *plan, struct output *out, int signals, pid_t command) {
    struct life life = {.plan = plan, .out = out, .command = command};
    life.started_mono = clock_ns(CLOCK_MONOTONIC);
    life.times.started_ns = clock_ns(CLOCK_REALTIME);
    report_running();
    wait_for_end(&life, signals);
    /* From here on nothing may fail: the outcome is known and must be told. Now, for a
     * process that cannot be killed (state D) may keep us here until we are killed; and
     * again when all output is in the log. */
    report_exit(life.code, life.status, &life.times, out->log.end, out->log.lost);
    kill_others(&life);
    tty_finish(out);
    output_finish(out);
    report_exit(life.code, life.status, &life.times, out->log.end, out->log.lost);
    report_over();
    _exit(0);
}
