/* worker-init zygote: the first stage that stays, for one launch after another.
 *
 * A plan comes as one message through a SOCK_SEQPACKET socket, as workerd/zygote.py makes
 * it: a header, the words of `run`, the environment, each string with its NUL; and its
 * descriptors, which get the numbers that the plan names, from FIRST_FD on. PID 1 is
 * cloned as by `run`, and told of through the plan's own status pipe. Nothing is exec'ed
 * for that, and the job takes over fresh network and IPC namespaces in which no other
 * has been: they are made in a pause between two plans, where there is one, with what of its
 * file systems does not depend on its plan (stock.c). The pause begins where PID 1 tells that its
 * command runs: it does not want what that takes any more. We are in the newest job's until then.
 * PID 1's mount namespace is a copy of ours, which is a copy of the host's, prepared for that
 * (template.c): made in the pause after a plan (or the start), or with the next plan, and left as
 * soon as the host's changes. So where no plans come, one change wakes us, and no further one.
 *
 * Nothing of a plan's text outlives it here: what PID 1 inherits from us is what we were before
 * it came. At the end of file on the socket, when the daemon has gone, we leave.
 *
 * Each PID 1 has the other socket from us, by which it says that its job is over (workerd/endings.py).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "init.h"

#define SOCKET_FD 3
#define ENDINGS_FD 4
#define FIRST_FD 5
#define MAX_FDS 15
#define MAX_STRINGS 4096
#define PAUSE_MS 20 /* until the newest job's command runs, where that is not told: both want the kernel's locks */

struct header {
    uint32_t words, variables;
};

static int running = -1; /* eventfd(2): a command of ours runs */

#define PAGES __attribute__((aligned(4096)))
static char message[128 << 10] PAGES;
static char *strings[MAX_STRINGS + 512] PAGES; /* the words, NULL, the environment, NULL; whole pages */
_Static_assert(FIRST_FD + MAX_FDS <= KEPT_FD, "no plan's descriptor is one that is kept");
_Static_assert(sizeof strings % 4096 == 0, "nothing else is on its pages");

/* Whether the descriptors are where the plan says that they are. */
static bool in_place(struct msghdr *header) {
    struct cmsghdr *control = CMSG_FIRSTHDR(header);
    if (control == NULL || control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
        return false;
    const int *fds = (const int *)CMSG_DATA(control);
    size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof *fds;
    for (size_t i = 0; i < count; i++)
        if (fds[i] != FIRST_FD + (int)i)
            return false;
    return count > 0;
}

/* The message's length; 0 at the end, -1 where it is no plan. */
static ssize_t receive(void) {
    union {
        char space[CMSG_SPACE(MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {message, sizeof message};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control,
    };
    ssize_t length = recvmsg(SOCKET_FD, &header, MSG_CMSG_CLOEXEC);
    if (length <= 0)
        return length;
    return !(header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && in_place(&header) ? length : -1;
}

/* `count` strings from *at on; NULL, or where the next one begins. */
static char *split(char *at, const char *end, uint32_t count, char **into) {
    for (uint32_t i = 0; i < count; i++) {
        char *nul = memchr(at, '\0', (size_t)(end - at));
        if (nul == NULL)
            return NULL;
        into[i] = at;
        at = nul + 1;
    }
    into[count] = NULL;
    return at;
}

/* NULL, or what is wrong with the message. */
static const char *read_plan(size_t length, struct plan *plan) {
    struct header header;
    const char *end = message + length;
    *plan = (struct plan){.status_fd = -1, .exit_fd = -1};
    if (length < sizeof header)
        return "no header";
    memcpy(&header, message, sizeof header);
    if (header.words < 2 || header.words > MAX_STRINGS || header.variables > MAX_STRINGS - header.words)
        return "too many words";
    char *rest = split(message + sizeof header, end, header.words, strings);
    environ = strings + header.words + 1;
    if (rest == NULL || split(rest, end, header.variables, environ) != end)
        return "not as long as it says";
    const char *wrong = plan_parse((int)header.words - 1, strings + 1, plan);
    if (wrong == NULL)
        wrong = plan_check_run(plan);
    if (wrong == NULL && plan->net == NET_HOST)
        return "not for this network";
    return wrong == NULL && plan->capabilities & ~USUAL_CAPABILITIES ? "not for these capabilities" : wrong;
}

/* Not the UTS namespace: a new one takes over the names of the one before. */
static bool make_fresh(void) {
    stock_clear();
    return unshare(CLONE_NEWNET | CLONE_NEWIPC) == 0 && network_loopback_up();
}

/* False where we are not fit for another. */
static bool carry_out(size_t length, char *word, bool fresh) {
    static struct plan plan;
    const char *wrong = read_plan(length, &plan);
    report_init(&plan);
    if (wrong != NULL)
        return report_refusal("plan", EINVAL, wrong), true;
    if (!fresh && !make_fresh())
        return report_refusal("namespaces", errno, ""), true;
    if (!template_renew())
        return report_refusal("mounts", errno, ""), false;
    eventfd_t earlier;
    eventfd_read(running, &earlier);
    pid_t pid = clone_init(&plan, CLONE_NEWUTS);
    if (pid != 0)
        stock_clear();
    if (pid < 0) {
        report_refusal("clone", errno, "");
    } else if (pid > 0) {
        report_pid(pid);
    } else {
        close(SOCKET_FD);
        report_ends_to(ENDINGS_FD);
        memcpy(word, "run\0\0", 6); /* over `zygote`: PID 1 is called as if it had been exec'ed */
        be_init(&plan, strings + 1);
    }
    return true;
}

/* The next plan finds us as this one did. One by one: close(2) is sure to close. */
static void forget(size_t length) {
    for (int fd = FIRST_FD; fd < FIRST_FD + MAX_FDS; fd++)
        close(fd);
    memset(message, 0, length);
    environ = strings + sizeof strings / sizeof *strings - 1; /* which stays NULL */
}

void zygote_release(void) {
    madvise(message, sizeof message, MADV_DONTNEED);
    madvise(strings, sizeof strings, MADV_DONTNEED);
}

void zygote_command_runs(void) {
    if (running >= 0)
        eventfd_write(running, 1);
    close_fd_of(&running);
}

/* Until a plan is there, or the end: what the next job takes over is made in a pause, once. False
 * where that cannot be. Nothing wakes us without a cause. */
static bool await(bool *fresh) {
    for (*fresh = false;;) {
        struct pollfd fds[3] = {
            {.fd = SOCKET_FD, .events = POLLIN},
            {.fd = template_changes(), .events = POLLPRI},
            {.fd = *fresh ? -1 : running, .events = POLLIN},
        };
        int seen = poll(fds, 3, *fresh ? -1 : PAUSE_MS);
        if (seen < 0 && errno != EINTR)
            return false;
        if (seen > 0 && fds[1].revents != 0 && !template_leave()) /* at once: what was unmounted is free */
            return false;
        if (seen > 0 && fds[0].revents != 0)
            return true;
        if (seen != 0 && fds[2].revents == 0)
            continue;
        if (!make_fresh())
            return false; /* rather than keep what is the newest job's */
        stock_fill();
        *fresh = true;
        if (!template_is_made() && !template_make())
            return false;
    }
}

int zygote(char *word) {
    block_signals();
    prctl(PR_SET_NAME, "worker-init", 0, 0, 0); /* else the number of a descriptor */
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (fcntl(SOCKET_FD, F_GETFD) < 0 || fcntl(ENDINGS_FD, F_GETFD) < 0 || !protect_from_oom())
        return 125;
    running = fd_keep(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    template_open();
    sharedsys_open();
    join_keyring();
    bound_for_all();
    seccomp_build();
    for (int failures = 0; failures < 100;) {
        bool fresh;
        if (!await(&fresh))
            return 125;
        ssize_t length = receive();
        if (length == 0)
            return 0;
        failures = length < 0 ? failures + 1 : 0;
        if (length > 0 && !carry_out((size_t)length, word, fresh))
            return 125;
        template_forget_plan();
        forget(length > 0 ? (size_t)length : sizeof message);
    }
    return 125;
}
