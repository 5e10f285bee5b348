/* What the job sees of the file system: view_build makes it of what was collected (sources.c). The
 * tree that a job may see of the host, which we begin in, becomes the job's root, or another takes its place.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"

static int root_tree = -1; /* the new root, then / */

static dev_t own_devices[MAX_MOUNTS + 8]; /* our own tmpfs: the only places where a target may be made */
static size_t own_count;

/* What the view replaces goes altogether, where it was not withheld: nothing of the host's
 * (or of a root tree's) lies beneath it, and the job's list of mounts is its own. */
static void detach_replaced(void) {
    for (const char *const *place = sources_replaced; *place != NULL; place++)
        hostmounts_unmount_all(*place);
}

/* From here on the process lives in the new root, and of the host's tree there is nothing else. */
static void enter_root(const struct sources *sources) {
    cleanup_fd int stub = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (stub < 0)
        fail("root", "/");
    if (sources->root_is_clone && !template_unmount_host())
        fail("root", "the host's tree");
    tree_attach(root_tree, stub, "root", "/");
    if (fchdir(root_tree) < 0 || chroot(".") < 0)
        fail("root", "/");
}

int view_open(const char *path) { return open_beneath(root_tree, path, O_PATH, WALK); }

void view_attach(int tree, const char *path, const char *step) {
    cleanup_fd int target = view_open(path);
    if (target < 0)
        fail(step, path);
    tree_attach(tree, target, step, path);
}

static void note_own(int fd) {
    struct stat st;
    if (own_count < sizeof own_devices / sizeof *own_devices && fstat(fd, &st) == 0)
        own_devices[own_count++] = st.st_dev;
}

static bool is_own(int fd) {
    struct stat st;
    if (fstat(fd, &st) < 0)
        return false;
    for (size_t i = 0; i < own_count; i++)
        if (own_devices[i] == st.st_dev)
            return true;
    return false;
}

/* With the caller's rights: nobody learns through a target what is in a directory that
 * is closed to him. */
static int open_as_caller(const struct plan *plan, int at, const char *name) {
    as_caller(plan);
    int fd = open_beneath(at, name, O_PATH, WALK);
    int kept = errno;
    as_root();
    errno = kept;
    return fd;
}

/* Makes what is missing of a target, but only on a tmpfs of our own: nothing is ever
 * created in a tree of the host's. */
static int make_target(const struct plan *plan, const char *path, bool is_dir) {
    int at = view_open("/");
    char name[NAME_MAX + 1];
    while (at >= 0 && *(path += strspn(path, "/")) != '\0') {
        size_t length = strcspn(path, "/");
        if (length > NAME_MAX)
            return errno = ENAMETOOLONG, -1;
        memcpy(name, path, length);
        name[length] = '\0';
        path += length;
        bool last = path[strspn(path, "/")] == '\0';
        int next = open_as_caller(plan, at, name);
        if (next < 0 && errno == ENOENT && is_own(at)) {
            int made = last && !is_dir ? mknodat(at, name, S_IFREG | 0644, 0) : mkdirat(at, name, 0755);
            next = made < 0 ? -1 : open_as_caller(plan, at, name);
        }
        int kept = errno;
        close(at);
        errno = kept;
        at = next;
    }
    return at;
}

static void place(const struct plan *plan, const struct mount_op *op, int tree, const char *step) {
    cleanup_fd int target = make_target(plan, op->target, op->is_dir);
    if (target < 0)
        fail(step, op->target);
    tree_attach(tree, target, step, op->target);
    close(tree);
}

/* -1: a root tree need not have it; a link leads to another private place. */
static int private_place(const char *path) {
    int target = view_open(path);
    if (target < 0 && errno != ENOENT && errno != ELOOP && errno != ENOTDIR)
        fail("tmpfs", path);
    return target;
}

void view_tmpfs(enum stock_item item, const char *path) {
    cleanup_fd int tree = stock_take(item, "tmpfs");
    cleanup_fd int target = private_place(path);
    if (target < 0)
        return;
    tree_attach(tree, target, "tmpfs", path);
    note_own(tree);
}

static void build_kernel_views(int proc, int sys) {
    view_attach(proc, "/proc", "proc");
    view_attach(sys, "/sys", "sys");
    cleanup_fd int cgroup = fs_new("cgroup2", NULL, SEALED, "cgroup");
    view_attach(cgroup, "/sys/fs/cgroup", "cgroup");
}

static void build_own_tmpfs(const struct plan *plan, const struct mount_op *op) {
    const char *what;
    int fd = tmpfs_make(op->size > 0 ? op->size : plan->tmp_size, QUIET, &what);
    if (fd < 0)
        fail("tmpfs", what);
    note_own(fd);
    place(plan, op, fd, "target");
}

void view_build(struct plan *plan, const struct sources *sources) {
    root_tree = sources->root;
    mode_t saved = umask(0);
    cleanup_fd int empty_fd = open(STUB_EMPTY, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (empty_fd < 0)
        fail("mask", STUB_EMPTY);
    cleanup_fd int sys = sharedsys_take(plan), proc = fs_new("proc", NULL, QUIET | MOUNT_ATTR_NOEXEC, "proc");
    enter_root(sources);
    detach_replaced();
    build_kernel_views(proc, sys);
    if (!masks_apply_to_sys(sys, empty_fd))
        fail("mask", "/sys");
    view_tmpfs(STOCK_RUN, "/run");
    view_tmpfs(STOCK_TMP, "/tmp");
    view_tmpfs(STOCK_VAR_TMP, "/var/tmp");
    devices_build();
    if (sources->cwd.tree >= 0)
        place(plan, &sources->cwd, sources->cwd.tree, "chdir");
    for (size_t i = 0; i < plan->nmounts; i++) {
        struct mount_op *op = &plan->mounts[i];
        if (op->kind == MOUNT_TMPFS)
            build_own_tmpfs(plan, op);
        else if (op->kind != MOUNT_HIDE)
            place(plan, op, op->tree, "target");
    }
    masks_apply_to_proc(proc, empty_fd);
    if (fchdir(root_tree) < 0)
        fail("root", "/");
    close(root_tree);
    sources_release();
    umask(saved);
}
