/* What the job sees of the file system.
 *
 * view_collect opens and clones, as the caller, everything that the view takes from
 * the host, before the view exists. view_build makes the new root and attaches to it. We
 * begin with a tree of what a job may see of the host as our root, and the stub that it lies on as
 * our working directory (template.c). When all is collected that tree is the job's; or, where
 * something was to be had of the host's own tree alone, or the job has a root tree, another takes its place.
 * A path is looked up once; from then on it is a descriptor.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"

static int root_tree = -1; /* the new root, then / */
static bool root_is_clone; /* and detached until then */
static int base_fd = -1;   /* where paths of the view are looked up: / or the rootfs */
static bool base_is_root;
static struct mount_op cwd_op = {.kind = MOUNT_RW, .tree = -1};

static const char *const replaced[] = {"/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", NULL};

static char paths[1 << 20] __attribute__((aligned(4096))); /* canonical targets; only what is used is ever touched */
static size_t paths_used;

static dev_t own_devices[MAX_MOUNTS + 8]; /* our own tmpfs: the only places where a target may be made */
static size_t own_count;

/* What the view wants, and could not be had. */
static struct {
    const char *step, *detail;
    int number;
} missing;

static bool cannot(const char *step, int number, const char *detail) {
    missing.step = step;
    missing.number = number;
    missing.detail = detail;
    return false;
}

/* Where a descriptor's file is, below our root; not ended by a NUL. -1 and errno. */
static ssize_t find_path(int fd, char *path, size_t size) {
    char link[32];
    snprintf(link, sizeof link, "self/fd/%d", fd);
    return readlinkat(template_proc(), link, path, size);
}

/* The path that a descriptor was found at, relative to the view's root; or NULL. */
static const char *canonical(int fd, const char *step, const char *detail) {
    char *path = paths + paths_used;
    static char base[PATH_MAX];
    ssize_t base_length = base_is_root ? 1 : find_path(base_fd, base, sizeof base - 1);
    if (paths_used + PATH_MAX > sizeof paths)
        return cannot(step, ENAMETOOLONG, detail), NULL;
    ssize_t length = find_path(fd, path, PATH_MAX);
    if (length < 0 || base_length < 0)
        return cannot(step, errno, detail), NULL;
    if (length == PATH_MAX || path[0] != '/')
        return cannot(step, ENAMETOOLONG, detail), NULL;
    path[length] = '\0';
    base[base_length] = '\0';
    paths_used += (size_t)length + 1;
    if (base_length > 1) {
        if (!below(path, base))
            return cannot(step, EXDEV, detail), NULL;
        path += base_length;
        return *path == '\0' ? "/" : path;
    }
    return path;
}

/* Kernel file systems and host sockets: they lead out of the job. */
static bool leads_out(const char *path) {
    static const char *const tops[] = {"/proc", "/sys", "/dev", "/run", "/var/run"};
    for (size_t i = 0; i < sizeof tops / sizeof *tops; i++)
        if (below(path, tops[i]))
            return true;
    return false;
}

/* Whether what we have at that path is what the host has there. */
static bool is_the_hosts(const char *path) {
    return !template_is_made() || !(leads_out(path) || hostmounts_are_withheld(path));
}

static bool may_have(const struct plan *plan, const char *path) {
    if (strcmp(path, "/") == 0) /* with /run, which only the host's has */
        return plan->uid == 0 && !template_is_made();
    return is_the_hosts(path) && (plan->uid == 0 || !leads_out(path));
}

static int open_source(const char *path, bool of_host) {
    return of_host ? open_beneath(AT_FDCWD, path, O_PATH, RESOLVE_NO_MAGICLINKS)
                   : open_beneath(base_fd, path, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

static bool is_directory(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Where a descriptor's file is on the host, in static storage; or NULL. */
static const char *host_path(int fd, const char *step, const char *detail) {
    static char path[PATH_MAX];
    ssize_t length = find_path(fd, path, sizeof path - 1);
    if (length < 0)
        return cannot(step, errno, detail), NULL;
    path[length] = '\0';
    return path;
}

static bool is_bind(const struct mount_op *op) { return op->kind == MOUNT_BIND || op->kind == MOUNT_BIND_RO; }

static const char *step_of(const struct mount_op *op) {
    return is_bind(op) ? "bind" : op->kind == MOUNT_RO ? "ro" : "rw";
}

static int sources[MAX_MOUNTS], cwd_source = -1; /* opened; -1 where nothing is to be cloned */

/* Opens one source as the caller; the clone is taken later, with PID 1's own rights. */
static bool open_op(const struct plan *plan, struct mount_op *op, int *fd) {
    const char *step = step_of(op), *path = op->source, *target = op->target;
    *fd = open_source(path, is_bind(op));
    if (*fd < 0 || !is_the_hosts(path)) /* the way leads through what only the host has */
        return cannot(step, *fd < 0 ? errno : EPERM, path);
    const char *found = host_path(*fd, step, path);
    if (found == NULL)
        return false;
    if (!may_have(plan, found))
        return cannot(step, EPERM, path);
    op->is_dir = is_directory(*fd);
    if (!is_bind(op) && (target = canonical(*fd, step, path)) == NULL)
        return false;
    if (strcmp(target, "/") == 0)
        return cannot(step, EPERM, path);
    op->target = target;
    return true;
}

/* A disk that does not answer, say, is no permission refused. */
static bool may_write(int fd, bool *may) {
    *may = syscall(SYS_faccessat2, fd, "", W_OK, AT_EMPTY_PATH | AT_EACCESS) == 0;
    return *may || errno == EACCES || errno == EPERM || errno == EROFS;
}

/* The working directory is the caller's to write if it may write there, and never / . */
static bool open_cwd(const struct plan *plan) {
    if (plan->rootfs != NULL)
        return true;
    cwd_source = open_beneath(AT_FDCWD, plan->cwd, O_PATH | O_DIRECTORY, RESOLVE_NO_MAGICLINKS);
    if (cwd_source < 0 || !is_the_hosts(plan->cwd))
        return cannot("chdir", cwd_source < 0 ? errno : EPERM, plan->cwd);
    const char *path = canonical(cwd_source, "chdir", plan->cwd);
    if (path == NULL)
        return false;
    if (!is_the_hosts(path))
        return cannot("chdir", EPERM, plan->cwd);
    cwd_op.target = path;
    cwd_op.is_dir = true;
    bool keep = leads_out(path) || strcmp(path, "/") == 0 || strcmp(path, "/tmp") == 0 || strcmp(path, "/var/tmp") == 0;
    bool writable = false;
    if (!keep && !plan->cwd_read_only && !may_write(cwd_source, &writable))
        return cannot("chdir", errno, plan->cwd);
    cwd_op.kind = writable ? MOUNT_RW : MOUNT_RO; /* a directory below a private /tmp is shown all the same */
    bool hidden = below(path, "/tmp") || below(path, "/var/tmp");
    if (keep || !(writable || hidden))
        close_fd_of(&cwd_source);
    return true;
}

static bool open_base(const struct plan *plan) {
    const char *path = plan->rootfs == NULL ? "/" : plan->rootfs;
    base_fd = open_beneath(AT_FDCWD, path, O_PATH | O_DIRECTORY, RESOLVE_NO_MAGICLINKS);
    if (base_fd < 0)
        return cannot("rootfs", errno, path);
    base_is_root = plan->rootfs == NULL;
    if (base_is_root)
        return true;
    const char *real = host_path(base_fd, "rootfs", path);
    if (real == NULL)
        return false;
    return strcmp(real, "/") == 0 || may_have(plan, real) || cannot("rootfs", EPERM, path);
}

/* As the caller. */
static bool open_all(struct plan *plan) {
    bool opened = open_base(plan) && open_cwd(plan);
    for (size_t i = 0; i < plan->nmounts; i++) {
        struct mount_op *op = &plan->mounts[i];
        if (op->kind != MOUNT_TMPFS && op->kind != MOUNT_HIDE)
            opened = opened && open_op(plan, op, &sources[i]);
    }
    return opened;
}

static bool clone_source(int *fd, bool read_only, const char *step, const char *detail, int *tree) {
    *tree = tree_copy(*fd, "", AT_EMPTY_PATH | AT_RECURSIVE);
    if (*tree < 0) /* EINVAL: withheld, see hostmounts.c, or unmounted meanwhile */
        return cannot(step, errno == EINVAL ? EPERM : errno, detail);
    tree_set(*tree, QUIET | (read_only ? MOUNT_ATTR_RDONLY : 0), 0, true, step, detail);
    close_fd_of(fd);
    return true;
}

static void take_root(const struct plan *plan) {
    const char *wrong = NULL;
    root_is_clone = plan->rootfs != NULL || !template_is_made();
    if (plan->rootfs == NULL && root_is_clone)
        wrong = hostmounts_withhold_places(replaced);
    if (wrong != NULL)
        fail("hide", wrong);
    if (plan->rootfs != NULL)
        root_tree = tree_clone(base_fd, "", AT_EMPTY_PATH | AT_RECURSIVE, "rootfs");
    else if (root_is_clone)
        root_tree = tree_clone(AT_FDCWD, "/", AT_RECURSIVE, "root");
    else
        root_tree = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_tree < 0)
        fail("root", "/");
    tree_set(root_tree, QUIET | MOUNT_ATTR_RDONLY, 0, true, "root", "/");
}

/* No path is looked up on the host from here on. */
static bool clone_all(struct plan *plan) {
    if (!template_is_made() && !hostmounts_withhold_proc())
        fail("hide", "/proc");
    bool cloned = cwd_source < 0 || clone_source(&cwd_source, cwd_op.kind == MOUNT_RO, "chdir", plan->cwd, &cwd_op.tree);
    for (size_t i = 0; cloned && i < plan->nmounts; i++) {
        struct mount_op *op = &plan->mounts[i];
        bool read_only = op->kind == MOUNT_RO || op->kind == MOUNT_BIND_RO;
        cloned = sources[i] < 0 || clone_source(&sources[i], read_only, step_of(op), op->source, &op->tree);
    }
    if (cloned)
        take_root(plan);
    return cloned;
}

/* False where something could not be had. */
static bool collect(struct plan *plan) {
    const char *shown = hostmounts_hide(plan);
    if (shown != NULL)
        return cannot("hide", errno, shown);
    as_caller(plan);
    bool opened = open_all(plan);
    as_root();
    return opened && clone_all(plan);
}

/* As it was before `collect`. */
static void drop_collected(struct plan *plan) {
    paths_used = 0;
    close_fd_of(&root_tree);
    close_fd_of(&base_fd);
    close_fd_of(&cwd_source);
    close_fd_of(&cwd_op.tree);
    for (size_t i = 0; i < plan->nmounts; i++) {
        close_fd_of(&sources[i]);
        close_fd_of(&plan->mounts[i].tree);
    }
}

void view_collect(struct plan *plan) {
    for (size_t i = 0; i < plan->nmounts; i++)
        sources[i] = -1;
    template_take();
    if (plan->nfiles > 0 && template_is_made()) /* they are in the daemon's run-time directory */
        template_take_host();
    network_collect_files(plan); /* before the daemon's own directories are hidden */
    for (;;) {
        bool collected = collect(plan), stale = template_was_stale();
        if (collected && !stale)
            break;
        if (!stale && !template_is_made()) /* nor has the host what is missing */
            fail_errno(missing.step, missing.number, missing.detail);
        drop_collected(plan);
        template_take_host();
    }
    template_release();
}

/* What the view replaces goes altogether, where it was not withheld: nothing of the host's
 * (or of a root tree's) lies beneath it, and the job's list of mounts is its own. */
static void detach_replaced(void) {
    for (const char *const *place = replaced; *place != NULL; place++)
        while (umount2(*place, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
            ;
}

/* From here on the process lives in the new root, and of the host's tree there is nothing else. */
static void enter_root(void) {
    cleanup_fd int stub = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (stub < 0)
        fail("root", "/");
    if (root_is_clone && !template_unmount_host())
        fail("root", "the host's tree");
    tree_attach(root_tree, stub, "root", "/");
    if (fchdir(root_tree) < 0 || chroot(".") < 0)
        fail("root", "/");
    close(base_fd);
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

void view_build(struct plan *plan) {
    mode_t saved = umask(0);
    cleanup_fd int empty_fd = open(STUB_EMPTY, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (empty_fd < 0)
        fail("mask", STUB_EMPTY);
    cleanup_fd int sys = sharedsys_take(plan), proc = fs_new("proc", NULL, QUIET | MOUNT_ATTR_NOEXEC, "proc");
    enter_root();
    detach_replaced();
    build_kernel_views(proc, sys);
    if (!masks_apply_to_sys(sys, empty_fd))
        fail("mask", "/sys");
    view_tmpfs(STOCK_RUN, "/run");
    view_tmpfs(STOCK_TMP, "/tmp");
    view_tmpfs(STOCK_VAR_TMP, "/var/tmp");
    devices_build();
    if (cwd_op.tree >= 0)
        place(plan, &cwd_op, cwd_op.tree, "chdir");
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
    madvise(paths, sizeof paths, MADV_DONTNEED); /* of no more use, for as long as the job runs */
    umask(saved);
}
