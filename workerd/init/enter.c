/* worker-init enter: one more command inside a running job (workerctl exec).
 *
 * The first stage clones the supervisor, a child of the daemon's, into the job's cgroup,
 * says its pid and leaves. The supervisor joins the job's namespaces, but for the PID
 * namespace, where only its child will be: so the job sees nothing of it and can reach
 * neither its memory nor its descriptors. It starts the command with the ids, the
 * capabilities, the limits and the filter that the job's own has, by the same code.
 *
 * The leash is a SOCK_SEQPACKET socket whose other end the client holds. Orders come
 * through it, the command's end is told through it, and when it is let go of the command
 * is hung up on, then killed. The daemon has no part in it: it may restart meanwhile.
 * When the job ends, PID 1 kills the command with all else in the namespace, and its end
 * waits until the supervisor has reaped it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init.h"

#define HANGUP_MS 5000 /* between SIGHUP and SIGKILL, once the client is gone */
#define NAMESPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

struct ending {
    uint32_t code, status; /* si_code and si_status of waitid(2) */
};
_Static_assert(sizeof(struct ending) == 8, "the layout is a contract");

static pid_t clone_supervisor(const struct plan *plan) {
    struct clone_args args = {
        .flags = CLONE_PARENT | CLONE_INTO_CGROUP,
        .cgroup = (uint64_t)plan->cgroup_fd,
    };
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0)
        fail("clone", "");
    return pid;
}

/* The end is told before the command is reaped: PID 1, and so the job's own end, waits
 * for the latter, and after it this process may be killed. */
static bool told_end(int leash, pid_t command) {
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)command, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
        return false;
    struct ending ending = {(uint32_t)info.si_code, (uint32_t)info.si_status};
    send(leash, &ending, sizeof ending, MSG_NOSIGNAL | MSG_DONTWAIT);
    waitid(P_PID, (id_t)command, &info, WEXITED);
    return true;
}

/* False when the client has let go. The command leads its own process group. */
static bool obey(int leash, pid_t command) {
    struct order order;
    ssize_t got = recv(leash, &order, sizeof order, MSG_DONTWAIT);
    if (got == sizeof order && order.kind == ORDER_SIGNAL && order.signal >= 1 && order.signal <= 64)
        kill(-command, order.signal);
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

static _Noreturn void supervise(int leash, int signals, pid_t command) {
    struct pollfd fds[2] = {{.fd = signals, .events = POLLIN}, {.fd = leash, .events = POLLIN}};
    int patience = -1;
    while (!told_end(leash, command)) {
        if (poll(fds, 2, patience) == 0)
            kill(-command, SIGKILL);
        struct signalfd_siginfo info;
        while (read(signals, &info, sizeof info) == sizeof info)
            ;
        if (fds[1].fd >= 0 && fds[1].revents != 0 && !obey(leash, command)) {
            fds[1].fd = -1;
            patience = HANGUP_MS;
            kill(-command, SIGHUP);
            kill(-command, SIGCONT); /* a stopped one could not even die of it */
        }
    }
    _exit(0);
}

static _Noreturn void join(const struct plan *plan, char **arguments) {
    prctl(PR_SET_NAME, "worker-enter", 0, 0, 0);
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        fail("capabilities", "dumpable");
    if (setns(plan->init_fd, NAMESPACES) < 0)
        fail("enter", "");
    int signals = open_signals();
    int streams[2] = {plan->stdout_fd, plan->stderr_fd};
    pid_t command = spawn_command(plan, streams);
    if (plan->stdin_fd >= 0)
        close(plan->stdin_fd);
    close(plan->init_fd);
    close(plan->cgroup_fd);
    wipe_arguments(arguments);
    drop_to_reaper();
    report_running();
    supervise(plan->leash_fd, signals, command);
}

int enter(int argc, char **argv) {
    static struct plan plan;
    block_signals();
    const char *wrong = plan_parse(argc, argv, &plan);
    if (wrong == NULL)
        wrong = plan_check_enter(&plan);
    if (wrong != NULL) {
        fprintf(stderr, "worker-init enter: %s\n", wrong);
        return 125;
    }
    report_init(&plan);
    pid_t pid = clone_supervisor(&plan);
    if (pid == 0)
        join(&plan, argv);
    report_pid(pid);
    return 0;
}
