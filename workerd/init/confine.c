/* Who the command runs as and what it may do; the last steps before exec.
 *
 * exec_command runs in a child that shares its memory with PID 1 until the exec
 * (vfork): it writes to nothing of PID 1's but the failure report.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"

#define LAST_CAPABILITY 40 /* CAP_CHECKPOINT_RESTORE; later ones are found by PR_CAPBSET_READ */

/* The effective ids, and for good the groups, become the caller's. Raw system calls:
 * libc's wrappers would change every thread, and here there is one. */
void as_caller(const struct plan *plan) {
    static bool has_groups;
    if (!has_groups && syscall(SYS_setgroups, plan->ngroups, plan->groups) < 0)
        fail("credentials", "groups");
    has_groups = true;
    if (syscall(SYS_setresgid, -1, plan->gid, -1) < 0 ||
        syscall(SYS_setresuid, -1, plan->uid, -1) < 0)
        fail("credentials", "");
}

void as_root(void) {
    if (syscall(SYS_setresuid, -1, 0, -1) < 0 || syscall(SYS_setresgid, -1, 0, -1) < 0)
        fail("credentials", "");
}

static void set_capabilities(uint64_t permitted) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {.effective = (uint32_t)permitted, .permitted = (uint32_t)permitted},
        {.effective = (uint32_t)(permitted >> 32), .permitted = (uint32_t)(permitted >> 32)},
    };
    if (syscall(SYS_capset, &header, data) < 0)
        fail("capabilities", "capset");
}

static uint64_t bounding_set = UINT64_MAX; /* what may be in it */

/* Each drop makes new credentials, a look at the set does not. False and errno where one stays. */
static bool drop_from_bounding_set(uint64_t kept) {
    for (unsigned long cap = 0; cap < 64; cap++) {
        if ((kept | ~bounding_set) >> cap & 1)
            continue;
        int held = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
        if (held < 0 && cap > LAST_CAPABILITY)
            return true;
        if (held != 0 && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return false;
    }
    return true;
}

static void bound_capabilities(uint64_t kept) {
    if (!drop_from_bounding_set(kept))
        fail("capabilities", "bounding set");
}

/* Once for all jobs: the set says what an exec may give, so it is of no use to us. */
void bound_for_all(void) {
    if (drop_from_bounding_set(USUAL_CAPABILITIES))
        bounding_set = USUAL_CAPABILITIES;
}

/* Before the command is forked, for both: what neither needs goes once. */
void bound_for_both(const struct plan *plan) {
    bound_capabilities(plan->capabilities | 1ull << CAP_KILL);
    bounding_set &= plan->capabilities | 1ull << CAP_KILL;
}

void drop_to_reaper(void) {
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        fail("capabilities", "dumpable");
    bound_capabilities(1ull << CAP_KILL);
    set_capabilities(1ull << CAP_KILL);
}

/* As much of it as may be had: only CAP_SYS_RESOURCE raises a hard limit. */
static void set_limit(int resource, rlim_t soft, rlim_t hard, const char *name) {
    struct rlimit now, limit = {soft, hard};
    if (setrlimit(resource, &limit) == 0)
        return;
    if (errno != EPERM || getrlimit(resource, &now) < 0)
        fail("rlimit", name);
    limit.rlim_max = now.rlim_max;
    limit.rlim_cur = soft < now.rlim_max ? soft : now.rlim_max;
    if (setrlimit(resource, &limit) < 0)
        fail("rlimit", name);
}

static void set_limits(void) {
    set_limit(RLIMIT_CORE, 0, 0, "core");
    set_limit(RLIMIT_NOFILE, 1024, 524288, "nofile");
    set_limit(RLIMIT_MEMLOCK, 8 << 20, 8 << 20, "memlock");
    set_limit(RLIMIT_RTPRIO, 0, 0, "rtprio");
    set_limit(RLIMIT_NICE, 0, 0, "nice");
    set_limit(RLIMIT_STACK, 8 << 20, RLIM_INFINITY, "stack");
    set_limit(RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY, "nproc");
    set_limit(RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY, "fsize");
    set_limit(RLIMIT_AS, RLIM_INFINITY, RLIM_INFINITY, "as");
    set_limit(RLIMIT_DATA, RLIM_INFINITY, RLIM_INFINITY, "data");
    set_limit(RLIMIT_RTTIME, RLIM_INFINITY, RLIM_INFINITY, "rttime");
    set_limit(RLIMIT_CPU, RLIM_INFINITY, RLIM_INFINITY, "cpu");
}

/* While CAP_SYS_RESOURCE is still held: then the job cannot lower it again. */
static void reset_oom_score(void) {
    cleanup_fd int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        fail("oom_score_adj", "");
}

static void set_streams(const struct plan *plan, int out, int err) {
    struct stat st;
    if (plan->controlling && ioctl(out, TIOCSCTTY, 0) < 0)
        fail("terminal", "controlling");
    int in = plan->controlling ? out : plan->stdin_fd >= 0 ? plan->stdin_fd : open("/dev/null", O_RDONLY);
    if (in < 0 || fstat(in, &st) < 0)
        fail("stdin", "/dev/null");
    /* A directory of the host's would be a way out of the view. */
    if (S_ISDIR(st.st_mode) || (fcntl(in, F_GETFL) & O_PATH))
        fail_errno("stdin", EISDIR, "standard input must be something to read");
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
        fail("stdio", "");
    if (syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        fail("close_range", "");
}

static bool keyring_is_empty; /* the session's, and nothing can have come into it */

/* A fresh one; kernels may do without. */
void join_keyring(void) { keyring_is_empty = syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL) >= 0; }

static void become(const struct plan *plan) {
    /* Else the first stage's does: of that which stays it is all jobs', which the filter keeps from
     * any key. For each keyring that goes the kernel looks at every key that there is. */
    if (!plan->seccomp || !keyring_is_empty)
        join_keyring();
    bound_capabilities(plan->capabilities);
    if (syscall(SYS_setgroups, plan->ngroups, plan->groups) < 0 ||
        syscall(SYS_setresgid, plan->gid, plan->gid, plan->gid) < 0)
        fail("credentials", "groups");
    if (prctl(PR_SET_KEEPCAPS, plan->capabilities != 0, 0, 0, 0) < 0 ||
        syscall(SYS_setresuid, plan->uid, plan->uid, plan->uid) < 0)
        fail("credentials", "uid");
    set_capabilities(plan->capabilities);
    /* Now that the ids are the user's, his other processes could trace PID 1's memory,
     * where fs.suid_dumpable is 1; exec gives a memory of its own. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        fail("capabilities", "dumpable");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail("no_new_privs", "");
}

static void enter_cwd(const struct plan *plan) {
    char here[PATH_MAX];
    cleanup_fd int fd = open_beneath(AT_FDCWD, plan->cwd, O_PATH | O_DIRECTORY, RESOLVE_NO_MAGICLINKS);
    if (fd < 0 || fchdir(fd) < 0)
        fail("chdir", plan->cwd);
    /* A directory outside of the view has no path in it (CVE-2024-21626). */
    if (syscall(SYS_getcwd, here, sizeof here) < 0 || here[0] != '/')
        fail_errno("chdir", ENOENT, plan->cwd);
}

static void unblock_signals(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn void exec_command(const struct plan *plan, int out, int err) {
    report_from_command();
    if (setsid() < 0)
        fail("setsid", "");
    set_limits();
    reset_oom_score();
    reset_inherited();
    set_streams(plan, out, err);
    become(plan);
    umask(plan->umask);
    enter_cwd(plan);
    unblock_signals();
    if (plan->seccomp)
        seccomp_install();
    execvp(plan->argv[0], plan->argv);
    fail("exec", plan->argv[0]);
}
