/* What a view is made of: all that it takes from the host.
 *
 * sources_collect opens and clones it as the caller, before the view exists. We begin with a tree of what a
 * job may see of the host as our root, and the stub that it lies on as our working directory (template.c).
 * Where something is to be had of the host's own tree alone, all is collected once more, from there.
 * A path is looked up once in each; from then on it is a descriptor.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"

const char *const sources_replaced[] = {"/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", NULL};

static int base_fd = -1; /* where paths of the view are looked up: / or the rootfs */
static bool base_is_root;

static char paths[1 << 20] __attribute__((aligned(4096))); /* canonical targets; only what is used is ever touched */
static size_t paths_used;

static int opened[MAX_MOUNTS], opened_cwd = -1; /* -1 where nothing is to be cloned */

/* What is wanted, and could not be had. */
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
static bool open_cwd(const struct plan *plan, struct mount_op *cwd) {
    if (plan->rootfs != NULL)
        return true;
    opened_cwd = open_beneath(AT_FDCWD, plan->cwd, O_PATH | O_DIRECTORY, RESOLVE_NO_MAGICLINKS);
    if (opened_cwd < 0 || !is_the_hosts(plan->cwd))
        return cannot("chdir", opened_cwd < 0 ? errno : EPERM, plan->cwd);
    const char *path = canonical(opened_cwd, "chdir", plan->cwd);
    if (path == NULL)
        return false;
    if (!is_the_hosts(path))
        return cannot("chdir", EPERM, plan->cwd);
    bool keep = leads_out(path) || strcmp(path, "/") == 0 || strcmp(path, "/tmp") == 0 || strcmp(path, "/var/tmp") == 0;
    bool writable = false;
    if (!keep && !plan->cwd_read_only && !may_write(opened_cwd, &writable))
        return cannot("chdir", errno, plan->cwd);
    *cwd = (struct mount_op){.kind = writable ? MOUNT_RW : MOUNT_RO, .target = path, .is_dir = true, .tree = -1};
    bool hidden = below(path, "/tmp") || below(path, "/var/tmp"); /* by a private one, but shown all the same */
    if (keep || !(writable || hidden))
        close_fd_of(&opened_cwd);
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
static bool open_all(struct plan *plan, struct mount_op *cwd) {
    bool all = open_base(plan) && open_cwd(plan, cwd);
    for (size_t i = 0; i < plan->nmounts; i++) {
        struct mount_op *op = &plan->mounts[i];
        if (op->kind != MOUNT_TMPFS && op->kind != MOUNT_HIDE)
            all = all && open_op(plan, op, &opened[i]);
    }
    return all;
}

static bool clone_source(int *fd, bool read_only, const char *step, const char *detail, int *tree) {
    *tree = tree_copy(*fd, "", AT_EMPTY_PATH | AT_RECURSIVE);
    if (*tree < 0) /* EINVAL: withheld, see hostmounts.c, or unmounted meanwhile */
        return cannot(step, errno == EINVAL ? EPERM : errno, detail);
    tree_set(*tree, QUIET | (read_only ? MOUNT_ATTR_RDONLY : 0), 0, true, step, detail);
    close_fd_of(fd);
    return true;
}

static void take_root(const struct plan *plan, struct sources *sources) {
    const char *wrong = NULL;
    sources->root_is_clone = plan->rootfs != NULL || !template_is_made();
    if (plan->rootfs == NULL && sources->root_is_clone)
        wrong = hostmounts_withhold_places(sources_replaced);
    if (wrong != NULL)
        fail("hide", wrong);
    if (plan->rootfs != NULL)
        sources->root = tree_clone(base_fd, "", AT_EMPTY_PATH | AT_RECURSIVE, "rootfs");
    else if (sources->root_is_clone)
        sources->root = tree_clone(AT_FDCWD, "/", AT_RECURSIVE, "root");
    else
        sources->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (sources->root < 0)
        fail("root", "/");
    tree_set(sources->root, QUIET | MOUNT_ATTR_RDONLY, 0, true, "root", "/");
}

/* No path is looked up on the host from here on. */
static bool clone_all(struct plan *plan, struct sources *sources) {
    struct mount_op *cwd = &sources->cwd;
    if (!template_is_made() && !hostmounts_withhold_proc())
        fail("hide", "/proc");
    bool all = opened_cwd < 0 || clone_source(&opened_cwd, cwd->kind == MOUNT_RO, "chdir", plan->cwd, &cwd->tree);
    for (size_t i = 0; all && i < plan->nmounts; i++) {
        struct mount_op *op = &plan->mounts[i];
        bool read_only = op->kind == MOUNT_RO || op->kind == MOUNT_BIND_RO;
        all = opened[i] < 0 || clone_source(&opened[i], read_only, step_of(op), op->source, &op->tree);
    }
    if (all)
        take_root(plan, sources);
    return all;
}

/* False where something could not be had. */
static bool collect(struct plan *plan, struct sources *sources) {
    const char *shown = hostmounts_hide(plan);
    if (shown != NULL)
        return cannot("hide", errno, shown);
    as_caller(plan);
    bool all = open_all(plan, &sources->cwd);
    as_root();
    return all && clone_all(plan, sources);
}

/* As it was before `collect`. */
static void drop(struct plan *plan, struct sources *sources) {
    paths_used = 0;
    close_fd_of(&base_fd);
    close_fd_of(&opened_cwd);
    close_fd_of(&sources->root);
    close_fd_of(&sources->cwd.tree);
    for (size_t i = 0; i < plan->nmounts; i++) {
        close_fd_of(&opened[i]);
        close_fd_of(&plan->mounts[i].tree);
    }
}

void sources_collect(struct plan *plan, struct sources *sources) {
    *sources = (struct sources){.root = -1, .cwd = {.tree = -1}};
    for (size_t i = 0; i < plan->nmounts; i++)
        opened[i] = -1;
    template_take();
    if (plan->nfiles > 0 && template_is_made()) /* they are in the daemon's run-time directory */
        template_take_host();
    network_collect_files(plan); /* before the daemon's own directories are hidden */
    for (;;) {
        bool all = collect(plan, sources), stale = template_was_stale();
        if (all && !stale)
            break;
        if (!stale && !template_is_made()) /* nor has the host what is missing */
            fail_errno(missing.step, missing.number, missing.detail);
        drop(plan, sources);
        template_take_host();
    }
    close_fd_of(&base_fd);
    template_release();
}

/* The targets' names, too, are of no more use, for as long as the job runs. */
void sources_release(void) { madvise(paths, sizeof paths, MADV_DONTNEED); }
