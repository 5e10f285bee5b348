/* The mount namespace that a job's own is a copy of.
 *
 * It has a clone of the host's tree, in which what no job may see is not (hostmounts.c), nor the host's
 * /proc, /sys, /dev and /run; below a stub: a sealed tmpfs with an empty directory, an empty file, and the
 * places where that tree and the jobs' common sysfs (sharedsys.c) are mounted. Our root is that tree, so that
 * paths and links mean what they mean on the host, and our working directory is the stub's root; both are
 * carried over into a copy, descriptors are not (they stay the original's). PID 1 moves the tree from its
 * place in the stub upon the stub's root (view.c): it is then the namespace's root, where setns(2)
 * arrives, and what lies beneath is empty. pivot_root(2) would look at the root and the working directory of
 * every process of the machine, for each job; and each umount2(2) waits for a grace period of RCU.
 *
 * The first stage that stays makes it ahead and lives in it, until the host's mounts change. What it keeps of the host's
 * namespace (the daemon's) is a descriptor of it to go back by, and the list of its mounts,
 * opened before the copy was made: poll(2) tells of any change since (proc_pid_mountinfo(5)).
 *
 * - It is never stale: the list is asked just before a job is cloned, and the copy made anew
 *   where there was a change.
 * - It holds nothing: its mounts are slaves of the host's, so that an unmount there is one
 *   here, within the same system call, where the host's mounts are shared (systemd's are);
 *   and for the others (and what lay on one that is not in it) it is left as soon as there is a
 *   change. The next one is made for the next job: a host without jobs is not followed.
 * - What comes to a slave after it was looked at may be what no job may see. So PID 1, when it has
 *   taken all that it needs and nothing more can come to that, asks a list which was opened
 *   before the other was found unchanged; where it has changed since, what was taken counts
 *   for nothing.
 * - Then, where it cannot be made, and where a plan wants what the host has and this has not, PID 1
 *   prepares a copy of the host's mounts for itself, as that of `run` does.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"

#define MAX_TRIES 3 /* while the host's mounts change all the time */
#define MAX_LIVELY 2 /* of PID 1's own copies of them: those that follow the host */

static const char *const left_out[] = {"/proc", "/sys", "/dev", "/run", NULL}; /* /tmp is not: a job may be started from there */

static struct {
    int proc;    /* the host's */
    int daemon;  /* its directory there */
    int host;    /* its mount namespace */
    int root;    /* its root, there */
    int changes; /* its mounts, as they were when ours were copied */
    int witness; /* the same, for one PID 1 */
    bool inside, made;
} template = {.proc = -1, .daemon = -1, .host = -1, .root = -1, .changes = -1, .witness = -1};

static int list_of_host(void) { return fd_keep(openat(template.daemon, "mountinfo", O_RDONLY | O_CLOEXEC)); }

/* Since the last time, or since the list was opened; also where that is not known. */
static bool has_changed(int list) {
    struct pollfd mounts = {.fd = list, .events = POLLPRI};
    return list < 0 || poll(&mounts, 1, 0) != 0;
}

/* Detached; -1 and errno. */
static int make_stub(void) {
    const char *const options[][2] = {{"mode", "555"}, {"nr_inodes", "5"}, {NULL, NULL}};
    const char *what;
    int stub = fs_make("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, &what);
    if (stub >= 0 && mkdirat(stub, STUB_HOST, 0555) == 0 && mkdirat(stub, STUB_EMPTY, 0555) == 0 &&
        mkdirat(stub, STUB_SYS, 0555) == 0 && mknodat(stub, STUB_NOTHING, S_IFREG | 0444, 0) == 0 && tree_seal(stub))
        return stub;
    int kept = errno;
    close_fd_of(&stub);
    errno = kept;
    return -1;
}

static bool live_in(int tree) { return fchdir(tree) == 0 && chroot(".") == 0; }

static bool stand_on_stub(void) {
    mode_t saved = umask(0);
    cleanup_fd int stub = make_stub();
    umask(saved);
    cleanup_fd int slash = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    /* Not chroot(STUB_HOST): where something is mounted over /, that would lead to it. */
    return stub >= 0 && slash >= 0 && tree_move(stub, slash) && fchdir(stub) == 0 &&
           syscall(SYS_pivot_root, ".", STUB_HOST) == 0 && live_in(slash) && fchdir(stub) == 0;
}

/* From where the host's tree is mounted. Where something is mounted over the host's / there is more than one. */
bool template_unmount_host(void) {
    int trees = 0;
    while (umount2(STUB_HOST, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        trees++;
    return trees > 0 && errno == EINVAL;
}

/* In place of the host's tree a clone of it, which has not what is withheld. */
static bool leave_out(void) {
    if (hostmounts_withhold_places(left_out) != NULL)
        return false;
    cleanup_fd int stub = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), tree = tree_copy(AT_FDCWD, "/", AT_RECURSIVE);
    if (stub < 0 || tree < 0 || !template_unmount_host())
        return false;
    cleanup_fd int place = open(STUB_HOST, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (place < 0 || !tree_move(tree, place) || !live_in(tree))
        return false;
    for (const char *const *each = left_out; *each != NULL; each++)
        if (!hostmounts_unmount_all(*each)) /* what another lay on */
            return false;
    return fchdir(stub) == 0;
}

/* Of a copy of the host's mounts that is our own; NULL, or what could not be done, and errno. */
static const char *build(unsigned long propagation) {
    if (mount(NULL, "/", NULL, MS_REC | propagation, NULL) < 0)
        return "propagation";
    return stand_on_stub() ? hostmounts_withhold() : "the place of the host's tree";
}

void template_open(void) {
    char path[32];
    snprintf(path, sizeof path, "%d", (int)getppid());
    template.proc = fd_keep(open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
    template.daemon = fd_keep(openat(template.proc, path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    template.host = fd_keep(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
    template.root = fd_keep(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
}

static bool go_back(void) { return setns(template.host, CLONE_NEWNS) == 0 && live_in(template.root); }

bool template_leave(void) {
    close_fd_of(&template.changes);
    close_fd_of(&template.witness);
    template.made = false;
    if (!template.inside)
        return true;
    template.inside = false;
    return go_back();
}

bool template_make(void) {
    if (!template_leave())
        return false;
    template.changes = list_of_host();
    if (template.changes < 0 || template.host < 0 || template.root < 0 || unshare(CLONE_NEWNS) < 0)
        return template_leave();
    template.inside = true;
    template.made = build(MS_SLAVE) == NULL && hostmounts_note_withheld() && leave_out();
    return template.made ? sharedsys_place() : template_leave();
}

bool template_is_made(void) { return template.made; }

int template_changes(void) { return template.changes; }

bool template_renew(void) {
    for (int tries = 0; tries <= MAX_TRIES; tries++) {
        close_fd_of(&template.witness);
        template.witness = list_of_host(); /* before the question that it is to cover */
        if (template.made && template.witness >= 0 && !has_changed(template.changes))
            return true;
        if (tries == MAX_TRIES)
            break;
        if (!template_make())
            return false;
        if (!template.made)
            break;
    }
    return template_leave();
}

void template_forget_plan(void) { close_fd_of(&template.witness); }

/* A copy of the host's mounts, which we are in, for PID 1 alone. While paths are looked up in it, it is a slave as the
 * template is, where the list that covers it is there: so it holds up no unmount, however long that takes, and what
 * that has mounted (autofs) is there the next time. Where it could not be made, it may be a change that is to blame. */
static bool prepare_own(void) {
    bool follows = template.witness >= 0;
    const char *wrong = build(follows ? MS_SLAVE : MS_PRIVATE);
    if (wrong != NULL && !follows)
        fail("hide", wrong);
    return wrong == NULL;
}

void template_do_without(void) {
    template_open();
    template.witness = list_of_host();
}

void template_take(void) {
    close_fd_of(&template.changes);
    if (!template.made && !prepare_own())
        template_take_host();
}

void template_take_host(void) {
    static int copies;
    template.made = false;
    do {
        close_fd_of(&template.witness);
        if (copies++ < MAX_LIVELY) /* the last one hears of nothing */
            template.witness = list_of_host();
        if (!go_back() || unshare(CLONE_NEWNS) < 0)
            fail("hide", "the host's mounts");
    } while (!prepare_own());
}

int template_proc(void) { return template.proc; }

bool template_was_stale(void) { return template.witness >= 0 && has_changed(template.witness); }

void template_release(void) {
    close_fd_of(&template.proc);
    close_fd_of(&template.daemon);
    close_fd_of(&template.host);
    close_fd_of(&template.root);
    close_fd_of(&template.witness);
}
