/* One sysfs for all jobs that have no network.
 *
 * Of a network namespace a sysfs shows the interfaces: there such a job has loopback alone, for none that the
 * first stage starts may make others, or change a mounted file system. Those have their own that are
 * not under the filter (leases of its files would hold up the rest); and that have a root tree of their
 * own, for they share no other files. For a new one the kernel looks at each that is mounted, under a lock
 * that all mounts want (sget_fc, fs/super.c): 2 ms of a launch among 5,000 jobs.
 *
 * So the first stage that stays mounts one, of a network namespace that is no job's, on the stub
 * (template.c), and covers what of it no job may see (of each CPU something). PID 1 moves what its copy of
 * the mounts has of that to the job's /sys. It keeps that namespace as well: a sysfs does not, and would
 * show no loopback once the first stage has left.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "init.h"

static int network = -1; /* the namespace */
static bool placed; /* with what of it no job may see covered */

static int own_network(void) { return openat(template_proc(), "self/ns/net", O_RDONLY | O_CLOEXEC); }

void sharedsys_open(void) {
    if (unshare(CLONE_NEWNET) == 0 && network_loopback_up())
        network = fd_keep(own_network());
}

bool sharedsys_place(void) {
    placed = false;
    cleanup_fd int own = own_network(), place = open(STUB_SYS, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (network < 0 || own < 0 || place < 0 || setns(network, CLONE_NEWNET) < 0)
        return true;
    const char *what;
    cleanup_fd int sys = fs_make("sysfs", NULL, SEALED, &what);
    cleanup_fd int empty = open(STUB_EMPTY, O_PATH | O_DIRECTORY | O_CLOEXEC);
    placed = sys >= 0 && empty >= 0 && tree_move(sys, place) && masks_apply_to_sys(sys, empty);
    if (!placed)
        umount2(STUB_SYS, MNT_DETACH | UMOUNT_NOFOLLOW);
    return setns(own, CLONE_NEWNET) == 0;
}

static bool shares(const struct plan *plan) {
    return plan->net == NET_NONE && plan->rootfs == NULL && plan->seccomp;
}

int sharedsys_take(const struct plan *plan) {
    bool is_there = placed && template_is_made();
    if (is_there && shares(plan)) {
        int sys = open(STUB_SYS, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (sys < 0)
            fail("sys", STUB_SYS);
        return sys;
    }
    close_fd_of(&network);
    if (is_there && umount2(STUB_SYS, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
        fail("sys", STUB_SYS);
    return fs_new("sysfs", NULL, SEALED, "sys");
}
