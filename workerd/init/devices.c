/* The job's /dev: the few devices that are harmless, a devpts and an mqueue of its own,
 * a private shm. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "init.h"

#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

static void make_node(int dev, const char *name, unsigned int minor_number, unsigned int major_number) {
    if (mknodat(dev, name, S_IFCHR | 0666, makedev(major_number, minor_number)) < 0)
        fail("dev", name);
}

static void make_link(int dev, const char *target, const char *name) {
    if (symlinkat(target, dev, name) < 0)
        fail("dev", name);
}

static void make_dir(int dev, const char *name) {
    if (mkdirat(dev, name, 0755) < 0)
        fail("dev", name);
}

void devices_build(const struct plan *plan) {
    const char *const dev_options[][2] = {{"mode", "755"}, {"size", "65536"}, {"nr_inodes", "64"}, {NULL, NULL}};
    cleanup_fd int dev = fs_new("tmpfs", dev_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, "dev");
    make_node(dev, "null", 3, 1);
    make_node(dev, "zero", 5, 1);
    make_node(dev, "full", 7, 1);
    make_node(dev, "random", 8, 1);
    make_node(dev, "urandom", 9, 1);
    make_node(dev, "tty", 0, 5);
    make_link(dev, "/proc/self/fd", "fd");
    make_link(dev, "/proc/self/fd/0", "stdin");
    make_link(dev, "/proc/self/fd/1", "stdout");
    make_link(dev, "/proc/self/fd/2", "stderr");
    make_link(dev, "pts/ptmx", "ptmx");
    make_dir(dev, "pts");
    make_dir(dev, "shm");
    make_dir(dev, "mqueue");
    view_attach(dev, "/dev", "dev");
    tree_set(dev, MOUNT_ATTR_RDONLY, 0, false, "dev", "/dev");
    const char *const pts_options[][2] = {{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}, {NULL, NULL}};
    cleanup_fd int pts = fs_new("devpts", pts_options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, "dev");
    view_attach(pts, "/dev/pts", "dev");
    cleanup_fd int queues = fs_new("mqueue", NULL, QUIET | MOUNT_ATTR_NOEXEC, "dev");
    view_attach(queues, "/dev/mqueue", "dev");
    view_tmpfs("/dev/shm", "1777", plan->tmp_size, "262144", QUIET | MOUNT_ATTR_NOEXEC);
}
