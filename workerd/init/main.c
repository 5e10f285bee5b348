/* worker-init run|zygote|enter|keep|version: see init.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"

#ifndef WORKER_VERSION
#define WORKER_VERSION "unknown"
#endif

/* All blocked, none ignored: so they stay, but for the command, which takes them again. Raw,
 * since libc keeps the first real-time signals to itself, and whoever started the daemon may have
 * left those ignored too. */
void block_signals(void) {
    static const char default_action[64]; /* struct kernel_sigaction: SIG_DFL, no flags */
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    for (int signal_number = 1; signal_number < 65; signal_number++)
        if (signal_number != SIGKILL && signal_number != SIGSTOP)
            syscall(SYS_rt_sigaction, signal_number, default_action, NULL, 8);
}

/* Without CAP_SYS_RESOURCE (in a container, say) PID 1 dies with its job when memory
 * runs out; the daemon then has the outcome from memory.events alone. */
bool protect_from_oom(void) {
    cleanup_fd int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    return fd >= 0 && (write(fd, "-1000", 5) == 5 || errno == EACCES);
}

/* The copy of us that returns 0 is PID 1 of the job, a child of the daemon's, and was
 * born in the job's cgroup. */
pid_t clone_init(const struct plan *plan, uint64_t fresh) {
    stock_fit(plan);
    struct clone_args args = {.flags = CLONE_PARENT | CLONE_NEWPID | CLONE_NEWNS | fresh};
    if (plan->cgroup_fd >= 0) {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = (uint64_t)plan->cgroup_fd;
    }
    return (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

static void enter_namespaces(const struct plan *plan) {
    /* clone3 would take the daemon's cgroup as the namespace's root, not the job's. */
    if (unshare(CLONE_NEWCGROUP) < 0)
        fail("cgroup-namespace", "");
    if (sethostname(plan->hostname, strlen(plan->hostname)) < 0)
        fail("hostname", plan->hostname);
}

struct start {
    const struct plan *plan;
    int out, err;
};

static int start_command(void *argument) {
    const struct start *start = argument;
    exec_command(start->plan, start->out, start->err);
}

/* As vfork: PID 1 waits until the child has exec'ed or failed, on the same memory. */
pid_t spawn_command(const struct plan *plan, const int streams[2]) {
    static char stack[64 << 10] __attribute__((aligned(4096)));
    struct start start = {plan, streams[0], streams[1]};
    pid_t pid = clone(start_command, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &start);
    int saved = errno;
    madvise(stack, sizeof stack, MADV_DONTNEED); /* of no more use, for as long as the job runs */
    if (report_command_failed())
        report_start_failure();
    if (pid < 0)
        fail_errno("fork", saved, "");
    close(streams[0]);
    close(streams[1]);
    return pid;
}

/* The plan is nobody's business once it is carried out: what `ps` shows of PID 1 inside
 * the job is its name alone. */
void wipe_arguments(char **argv) {
    for (; *argv != NULL; argv++)
        memset(*argv, 0, strlen(*argv));
}

_Noreturn void be_init(struct plan *plan, char **arguments) {
    static struct output out;
    struct sources sources;
    int write_ends[2];
    prctl(PR_SET_NAME, "worker-init", 0, 0, 0);
    if (plan->cgroup_fd >= 0)
        close(plan->cgroup_fd);
    go_announce(plan);
    sources_collect(plan, &sources);
    enter_namespaces(plan);
    view_build(plan, &sources);
    network_place_files(plan);
    int signals = open_signals(); /* what can fail does so before the command runs */
    bound_for_both(plan);
    go_wait(plan);
    if (plan->net == NET_BRIDGE)
        network_configure(plan);
    output_open(&out, plan, write_ends);
    tty_open(plan, write_ends);
    report_starting();
    pid_t command = spawn_command(plan, write_ends);
    zygote_command_runs();
    if (plan->stdin_fd >= 0)
        close(plan->stdin_fd);
    wipe_arguments(arguments);
    zygote_release();
    drop_to_reaper();
    reap_forever(plan, &out, signals, command);
}

static int run(int argc, char **argv) {
    static struct plan plan;
    block_signals();
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* nobody traces it, not even while its ids change */
    const char *wrong = plan_parse(argc, argv, &plan);
    if (wrong == NULL)
        wrong = plan_check_run(&plan);
    if (wrong != NULL) {
        fprintf(stderr, "worker-init run: %s\n", wrong);
        return 125;
    }
    report_init(&plan);
    if (!protect_from_oom())
        fail("oom_score_adj", "");
    join_keyring();
    template_do_without();
    pid_t pid = clone_init(&plan, CLONE_NEWIPC | CLONE_NEWUTS | (plan.net == NET_HOST ? 0 : CLONE_NEWNET));
    if (pid < 0)
        fail("clone", "");
    if (pid == 0) {
        if (plan.net != NET_HOST && !network_loopback_up())
            fail("loopback", "lo");
        be_init(&plan, argv);
    }
    report_pid(pid);
    return 0;
}

/* Holds the delegated unit's cgroup open for as long as jobs may need it. */
static int keep(void) {
    sigset_t set;
    int signal_number;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigwait(&set, &signal_number);
    return 0;
}

int main(int argc, char **argv) {
    if (argc >= 2 && strcmp(argv[1], "run") == 0)
        return run(argc - 2, argv + 2);
    if (argc == 2 && strcmp(argv[1], "zygote") == 0)
        return zygote(argv[1]);
    if (argc >= 2 && strcmp(argv[1], "enter") == 0)
        return enter(argc - 2, argv + 2);
    if (argc == 2 && strcmp(argv[1], "keep") == 0)
        return keep();
    if (argc == 2 && strcmp(argv[1], "version") == 0) {
        puts("worker-init " WORKER_VERSION);
        return 0;
    }
    fputs("usage: worker-init run OPTION… -- COMMAND ARGUMENT…\n       worker-init enter OPTION… -- COMMAND ARGUMENT…\n"
          "       worker-init zygote\n       worker-init keep\n       worker-init version\n", stderr);
    return 125;
}
