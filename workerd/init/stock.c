/* File systems of the next job's that have nothing to do with its plan: the first stage that
 * stays makes them in the pause in which it makes the network and IPC namespaces, which one of
 * them is of. They are mounted nowhere yet, so that their descriptors are all there is to
 * them, and PID 1, which inherits those, attaches them in its own mount namespace. What is not
 * in stock it makes by itself. No two jobs get the same.
 */
#define _GNU_SOURCE
#include <linux/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"

#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

static int make_terminals(const char **what) {
    const char *const options[][2] = {{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}, {NULL, NULL}};
    return fs_make("devpts", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, what);
}

/* Of the IPC namespace that we are in. */
static int make_queues(const char **what) { return fs_make("mqueue", NULL, QUIET | MOUNT_ATTR_NOEXEC, what); }

static int make_run(const char **what) {
    const char *const options[][2] = {{"mode", "755"}, {"size", "67108864"}, {"nr_inodes", "65536"}, {NULL, NULL}};
    return fs_make("tmpfs", options, QUIET, what);
}

static struct {
    int (*const make)(const char **what); /* detached; -1 and errno */
    int fd;
} stock[] = {
    [STOCK_DEVICES] = {devices_make, -1}, [STOCK_TERMINALS] = {make_terminals, -1}, [STOCK_QUEUES] = {make_queues, -1},
    [STOCK_RUN] = {make_run, -1},
};

#define COUNT (sizeof stock / sizeof *stock)

void stock_clear(void) {
    for (size_t i = 0; i < COUNT; i++)
        close_fd_of(&stock[i].fd);
}

void stock_fill(void) {
    mode_t saved = umask(0);
    const char *what;
    stock_clear();
    for (size_t i = 0; i < COUNT; i++)
        stock[i].fd = fd_keep(stock[i].make(&what));
    umask(saved);
}

int stock_take(enum stock_item item, const char *step) {
    const char *what = "";
    int fd = stock[item].fd >= 0 ? stock[item].fd : stock[item].make(&what);
    stock[item].fd = -1;
    if (fd < 0)
        fail(step, what);
    return fd;
}
