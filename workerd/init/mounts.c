/* Thin wrappers over the mount system calls, all by fd (open_tree(2), move_mount(2),
 * mount_setattr(2), fsopen(2), openat2(2)). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

int tree_copy(int dirfd, const char *path, unsigned int flags) {
    return (int)syscall(SYS_open_tree, dirfd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);
}

int tree_clone(int dirfd, const char *path, unsigned int flags, const char *step) {
    int tree = tree_copy(dirfd, path, flags);
    if (tree < 0)
        fail(step, path);
    return tree;
}

/* And nothing that is mounted elsewhere comes to it from here on. */
void tree_set(int fd, uint64_t set, uint64_t clear, bool recursive, const char *step, const char *detail) {
    struct mount_attr attr = {.attr_set = set, .attr_clr = clear, .propagation = MS_PRIVATE};
    unsigned int flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
    if (syscall(SYS_mount_setattr, fd, "", flags, &attr, sizeof attr) < 0)
        fail(step, detail);
}

/* No clone contains that mount from here on, nor those on it; false where it is none. */
bool tree_withhold(int fd) {
    struct mount_attr attr = {.propagation = MS_UNBINDABLE};
    return syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr) == 0;
}

/* Read-only; false and errno. */
bool tree_seal(int fd) {
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY};
    return syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof attr) == 0;
}

/* A detached tree, or a mount with all that is on it; false and errno. */
bool tree_move(int tree, int target) {
    return syscall(SYS_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) == 0;
}

void tree_attach(int tree, int target, const char *step, const char *detail) {
    if (!tree_move(tree, target))
        fail(step, detail);
}

int fs_make(const char *type, const char *const options[][2], uint64_t attributes, const char **what) {
    *what = type;
    cleanup_fd int context = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
    if (context < 0 || syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "source", type, 0) < 0)
        return -1;
    for (; options != NULL && (*options)[0] != NULL; options++)
        if (syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, (*options)[0], (*options)[1], 0) < 0)
            return *what = (*options)[0], -1;
    if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    return (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
}

int fs_new(const char *type, const char *const options[][2], uint64_t attributes, const char *step) {
    const char *what;
    int fd = fs_make(type, options, attributes, &what);
    if (fd < 0)
        fail(step, what);
    return fd;
}

int fd_keep(int fd) {
    cleanup_fd int low = fd;
    return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, KEPT_FD);
}

/* -1 and errno where it cannot be opened; EAGAIN of a concurrent rename is tried again. */
int open_beneath(int root, const char *path, uint64_t flags, uint64_t resolve) {
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = resolve};
    const char *relative = path;
    while (*relative == '/' && (resolve & RESOLVE_BENEATH))
        relative++;
    if (*relative == '\0')
        relative = ".";
    for (int tries = 0;; tries++) {
        int fd = (int)syscall(SYS_openat2, root, relative, &how, sizeof how);
        if (fd >= 0 || errno != EAGAIN || tries == 64)
            return fd;
    }
}
