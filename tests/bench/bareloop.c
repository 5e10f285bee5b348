/* The limit that a launch is measured against: clone3 into six new namespaces and a
 * cgroup of its own, a private read-only root with fresh /proc, /sys, /dev, /tmp, /run,
 * exec, wait, and the cgroup removed. No init, no output, no record.
 *
 * usage: bareloop CGROUP_DIR COUNT COMMAND [ARGUMENT…]   prints microseconds, one a line
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

static void must(long result, const char *what) {
    if (result < 0) {
        perror(what);
        _exit(1);
    }
}

static void fresh(const char *type, const char *target, const char *options, unsigned long flags) {
    must(mount(type, target, type, flags, options), target);
}

static void child(char **argv) {
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
    int tree = (int)syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE | AT_RECURSIVE);
    must(tree, "open_tree");
    must(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr), "mount_setattr");
    must(syscall(SYS_move_mount, tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH), "move_mount");
    must(fchdir(tree), "fchdir");
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount2");
    must(chdir("/"), "chdir");
    fresh("proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC);
    fresh("sysfs", "/sys", NULL, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
    fresh("tmpfs", "/tmp", "mode=1777", MS_NOSUID | MS_NODEV);
    fresh("tmpfs", "/run", "mode=755", MS_NOSUID | MS_NODEV);
    fresh("tmpfs", "/dev", "mode=755", MS_NOSUID);
    static const struct { const char *name; int major, minor; } nodes[] = {
        {"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7},
        {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},
    };
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        must(mknod(nodes[i].name, S_IFCHR | 0666, makedev((unsigned)nodes[i].major, (unsigned)nodes[i].minor)), "mknod");
    mkdir("/dev/pts", 0755);
    fresh("devpts", "/dev/pts", "newinstance,ptmxmode=0666", MS_NOSUID | MS_NOEXEC);
    execv(argv[0], argv);
    must(-1, argv[0]);
}

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 2;
    char path[4096];
    for (long i = 0, count = atol(argv[2]); i < count; i++) {
        uint64_t begin = now_us();
        snprintf(path, sizeof path, "%s/job-%ld", argv[1], i);
        must(mkdir(path, 0755), path);
        int cgroup = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        must(cgroup, path);
        struct clone_args args = {
            .flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP |
                     CLONE_INTO_CGROUP,
            .exit_signal = SIGCHLD,
            .cgroup = (uint64_t)cgroup,
        };
        pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
        must(pid, "clone3");
        if (pid == 0)
            child(argv + 3);
        int status;
        waitpid(pid, &status, 0);
        if (status != 0)
            return 1;
        close(cgroup);
        must(rmdir(path), path);
        printf("%llu\n", (unsigned long long)(now_us() - begin));
    }
    return 0;
}
