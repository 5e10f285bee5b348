/* What of the kernel's own file systems is covered or read-only in the view (after the
 * well-known container runtimes' lists). No link is followed on the way. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "init.h"

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

/* /dev/null as the kernel knows it, whatever a root tree put there (CVE-2025-31133). */
static int open_null(void) {
    struct stat st;
    int fd = view_open("/dev/null");
    if (fd < 0 || fstat(fd, &st) < 0)
        fail("mask", "/dev/null");
    if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
        fail_errno("mask", ENODEV, "/dev/null");
    return fd;
}

static bool is_absent(int fd) { return fd < 0 && (errno == ENOENT || errno == ENOTDIR); }

enum cover { ABSENT, COVERED, FAILED }; /* FAILED: and errno */

/* A directory. It is looked up each time, also where it may be covered already: a mount on a directory of
 * sysfs that has gone goes with the first look that misses it, no sooner. */
static enum cover mask(int sys, const char *path, int empty_fd) {
    cleanup_fd int target = open_beneath(sys, path, O_PATH, WALK | RESOLVE_NO_XDEV);
    if (target < 0)
        return is_absent(target) ? ABSENT : errno == EXDEV ? COVERED : FAILED;
    cleanup_fd int empty = tree_copy(empty_fd, "", AT_EMPTY_PATH);
    return empty >= 0 && tree_move(empty, target) ? COVERED : FAILED;
}

static bool mask_throttle(int sys, int empty_fd) {
    char path[64];
    for (int cpu = 0;; cpu++) {
        snprintf(path, sizeof path, "devices/system/cpu/cpu%d/thermal_throttle", cpu);
        enum cover cover = mask(sys, path, empty_fd);
        if (cover == FAILED)
            return false;
        if (cover == COVERED)
            continue;
        *strrchr(path, '/') = '\0';
        cleanup_fd int fd = open_beneath(sys, path, O_PATH, WALK);
        if (fd < 0)
            return is_absent(fd);
    }
}

bool masks_apply_to_sys(int sys, int empty_fd) {
    static const char *const masked[] = {"firmware", "devices/virtual/powercap", "fs/selinux"};
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
        if (mask(sys, masked[i], empty_fd) == FAILED)
            return false;
    return mask_throttle(sys, empty_fd);
}

/* In the working directory, with a directory or a file: its like. */
static bool cover_by_name(const char *name, int with_fd) {
    char with[32];
    snprintf(with, sizeof with, "self/fd/%d", with_fd);
    return mount(with, name, NULL, MS_BIND, NULL) == 0 || (errno == ENOENT && access(name, F_OK) < 0);
}

static void cover_all(const char *const paths[], int with_fd) {
    for (; *paths != NULL; paths++)
        if (!cover_by_name(*paths + strlen("/proc/"), with_fd))
            fail("mask", *paths);
}

static bool seal(const char *name) {
    struct mount_attr sealed = {.attr_set = SEALED, .propagation = MS_PRIVATE};
    if (mount(name, name, NULL, MS_BIND | MS_REC, NULL) < 0)
        return errno == ENOENT;
    return syscall(SYS_mount_setattr, AT_FDCWD, name, AT_RECURSIVE, &sealed, sizeof sealed) == 0;
}

/* By name from within: it is a proc of our own, whose names nobody changes, and whoever may rename
 * what lies above it (in a root tree) does not lead us elsewhere. */
void masks_apply_to_proc(int proc, int empty_fd) {
    static const char *const directories[] = {"/proc/acpi", "/proc/asound", "/proc/scsi", NULL};
    static const char *const files[] = {
        "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
        "/proc/timer_list", "/proc/timer_stats",
        /* of the whole machine, and open to root without any capability */
        "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/vmallocinfo", NULL,
    };
    static const char *const sealed[] = {
        "/proc/bus", "/proc/driver", "/proc/dynamic_debug", "/proc/fs", "/proc/irq", "/proc/mtrr", "/proc/sys",
        "/proc/sysrq-trigger",
    };
    cleanup_fd int null_fd = open_null();
    if (fchdir(proc) < 0)
        fail("mask", "/proc");
    cover_all(directories, empty_fd);
    cover_all(files, null_fd);
    for (size_t i = 0; i < sizeof sealed / sizeof *sealed; i++)
        if (!seal(sealed[i] + strlen("/proc/")))
            fail("read-only", sealed[i]);
}
