/* What of the kernel's own file systems is covered or read-only in the view (after the
 * well-known container runtimes' lists). Targets are opened without following links and
 * are descriptors from then on. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "init.h"

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif

#define WALK (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)

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

/* A file cannot be covered where `null_fd` is -1. */
static enum cover mask(int at, const char *path, int null_fd, int empty_fd) {
    struct stat st;
    cleanup_fd int target = open_beneath(at, path, O_PATH, WALK);
    if (is_absent(target))
        return ABSENT;
    if (target < 0 || fstat(target, &st) < 0)
        return FAILED;
    cleanup_fd int cover = tree_copy(S_ISDIR(st.st_mode) ? empty_fd : null_fd, "", AT_EMPTY_PATH);
    return cover >= 0 && tree_move(cover, target) ? COVERED : FAILED;
}

static void seal(int proc, const char *path) {
    const uint64_t sealed = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    cleanup_fd int target = open_beneath(proc, path + strlen("/proc"), O_PATH, WALK);
    if (is_absent(target))
        return;
    if (target < 0)
        fail("read-only", path);
    cleanup_fd int tree = tree_clone(target, "", AT_EMPTY_PATH | AT_RECURSIVE, "read-only");
    tree_set(tree, sealed, 0, true, "read-only", path);
    tree_attach(tree, target, "read-only", path);
}

static bool mask_throttle(int sys, int empty_fd, int *covered) {
    char path[64];
    for (int cpu = *covered;; cpu++) {
        snprintf(path, sizeof path, "devices/system/cpu/cpu%d", cpu);
        cleanup_fd int fd = open_beneath(sys, path, O_PATH, WALK);
        if (fd < 0)
            return is_absent(fd);
        enum cover cover = mask(fd, "thermal_throttle", -1, empty_fd);
        if (cover == FAILED)
            return false;
        if (cover == COVERED && cpu == *covered)
            ++*covered;
    }
}

bool masks_apply_to_sys(int sys, bool is_new, int empty_fd) {
    static const char *const masked[] = {"firmware", "devices/virtual/powercap", "fs/selinux"};
    static struct {
        enum cover masked[sizeof masked / sizeof *masked];
        int throttles; /* of the first CPUs */
    } covered;
    if (is_new)
        memset(&covered, 0, sizeof covered);
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
        if (covered.masked[i] != COVERED && (covered.masked[i] = mask(sys, masked[i], -1, empty_fd)) == FAILED)
            return false;
    return mask_throttle(sys, empty_fd, &covered.throttles);
}

void masks_apply_to_proc(int proc, int empty_fd) {
    static const char *const masked[] = {
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
        /* of the whole machine, and open to root without any capability */
        "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/vmallocinfo",
    };
    static const char *const sealed[] = {
        "/proc/bus", "/proc/driver", "/proc/dynamic_debug", "/proc/fs", "/proc/irq", "/proc/mtrr", "/proc/sys",
        "/proc/sysrq-trigger",
    };
    cleanup_fd int null_fd = open_null();
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
        if (mask(proc, masked[i] + strlen("/proc"), null_fd, empty_fd) == FAILED)
            fail("mask", masked[i]);
    for (size_t i = 0; i < sizeof sealed / sizeof *sealed; i++)
        seal(proc, sealed[i]);
}
