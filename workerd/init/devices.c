/* The job's /dev: the few devices that are harmless, a devpts and an mqueue of its own,
 * a private shm. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "init.h"

static const struct {
    const char *name;
    unsigned int major_number, minor_number;
} nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

static const struct {
    const char *name, *target;
} links[] = {
    {"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
    {"ptmx", "pts/ptmx"},
};

static const char *const directories[] = {"pts", "shm", "mqueue"};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool make_entries(int dev, const char **what) {
    for (size_t i = 0; i < COUNT(nodes); i++)
        if (mknodat(dev, *what = nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major_number, nodes[i].minor_number)) < 0)
            return false;
    for (size_t i = 0; i < COUNT(links); i++)
        if (symlinkat(links[i].target, dev, *what = links[i].name) < 0)
            return false;
    for (size_t i = 0; i < COUNT(directories); i++)
        if (mkdirat(dev, *what = directories[i], 0755) < 0)
            return false;
    return true;
}

int devices_make(const char **what) {
    const char *const options[][2] = {{"mode", "755"}, {"size", "65536"}, {"nr_inodes", "64"}, {NULL, NULL}};
    int dev = fs_make("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, what);
    if (dev < 0 || (make_entries(dev, what) && tree_seal(dev)))
        return dev;
    int kept = errno;
    close(dev);
    errno = kept;
    return -1;
}

static void attach(enum stock_item item, const char *path) {
    cleanup_fd int tree = stock_take(item, "dev");
    view_attach(tree, path, "dev");
}

void devices_build(void) {
    attach(STOCK_DEVICES, "/dev");
    attach(STOCK_TERMINALS, "/dev/pts");
    attach(STOCK_QUEUES, "/dev/mqueue");
    view_tmpfs(STOCK_SHM, "/dev/shm");
}
