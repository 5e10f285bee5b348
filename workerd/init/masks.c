/* What of the kernel's own file systems is covered or read-only in the view (after the
 * well-known container runtimes' lists). Targets are opened without following links and
 * are descriptors from then on. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <sys/stat.h>
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

static void mask(const char *path, int null_fd, int empty_fd) {
    struct stat st;
    cleanup_fd int target = view_open(path);
    if (is_absent(target))
        return;
    if (target < 0 || fstat(target, &st) < 0)
        fail("mask", path);
    cleanup_fd int cover = tree_clone(S_ISDIR(st.st_mode) ? empty_fd : null_fd, "", AT_EMPTY_PATH, "mask");
    tree_attach(cover, target, "mask", path);
}

static void seal(const char *path) {
    const uint64_t sealed = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    cleanup_fd int target = view_open(path);
    if (is_absent(target))
        return;
    if (target < 0)
        fail("read-only", path);
    cleanup_fd int tree = tree_clone(target, "", AT_EMPTY_PATH | AT_RECURSIVE, "read-only");
    tree_set(tree, sealed, 0, true, "read-only", path);
    tree_attach(tree, target, "read-only", path);
}

static void mask_throttle(int null_fd, int empty_fd) {
    char path[80];
    for (int cpu = 0;; cpu++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d", cpu);
        cleanup_fd int fd = view_open(path);
        if (fd < 0)
            return;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/thermal_throttle", cpu);
        mask(path, null_fd, empty_fd);
    }
}

void masks_apply(int empty_fd) {
    static const char *const masked[] = {
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
        /* of the whole machine, and open to root without any capability */
        "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags", "/proc/vmallocinfo",
        "/sys/firmware", "/sys/devices/virtual/powercap", "/sys/fs/selinux",
    };
    static const char *const sealed[] = {
        "/proc/bus", "/proc/driver", "/proc/dynamic_debug", "/proc/fs", "/proc/irq", "/proc/mtrr", "/proc/sys",
        "/proc/sysrq-trigger",
    };
    cleanup_fd int null_fd = open_null();
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
        mask(masked[i], null_fd, empty_fd);
    mask_throttle(null_fd, empty_fd);
    for (size_t i = 0; i < sizeof sealed / sizeof *sealed; i++)
        seal(sealed[i]);
}
