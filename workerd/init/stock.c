/* File systems of the next job's that have nothing to do with its plan: the first stage that
 * stays makes them in the pause in which it makes the network and IPC namespaces, which one of
 * them is of. They are mounted nowhere yet, so that their descriptors are all there is to
 * them, and PID 1, which inherits those, attaches them in its own mount namespace. What is not
 * in stock it makes by itself. No two jobs get the same.
 */
#define _GNU_SOURCE
#include <linux/mount.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"

static int make_terminals(const char **what) {
    const char *const options[][2] = {{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}, {NULL, NULL}};
    return fs_make("devpts", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, what);
}

/* Of the IPC namespace that we are in. */
static int make_queues(const char **what) { return fs_make("mqueue", NULL, QUIET | MOUNT_ATTR_NOEXEC, what); }

int tmpfs_make(uint64_t size, uint64_t attributes, const char **what) {
    char bytes[24];
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)size);
    const char *const options[][2] = {{"mode", "1777"}, {"size", bytes}, {"nr_inodes", "262144"}, {NULL, NULL}};
    return fs_make("tmpfs", options, attributes, what);
}

static uint64_t tmp_size = 1ull << 30; /* of the newest plan, as the next one's will mostly be; what is usual before any */

static int make_tmp(const char **what) { return tmpfs_make(tmp_size, QUIET, what); }

static int make_shm(const char **what) { return tmpfs_make(tmp_size, QUIET | MOUNT_ATTR_NOEXEC, what); }

static int make_run(const char **what) {
    const char *const options[][2] = {{"mode", "755"}, {"size", "67108864"}, {"nr_inodes", "65536"}, {NULL, NULL}};
    return fs_make("tmpfs", options, QUIET, what);
}

static struct {
    int (*const make)(const char **what); /* detached; -1 and errno */
    int fd;
} stock[] = {
    [STOCK_DEVICES] = {devices_make, -1}, [STOCK_TERMINALS] = {make_terminals, -1}, [STOCK_QUEUES] = {make_queues, -1},
    [STOCK_RUN] = {make_run, -1}, [STOCK_TMP] = {make_tmp, -1}, [STOCK_VAR_TMP] = {make_tmp, -1},
    [STOCK_SHM] = {make_shm, -1},
};

#define COUNT (sizeof stock / sizeof *stock)

void stock_fit(const struct plan *plan) {
    if (plan->tmp_size == tmp_size)
        return;
    tmp_size = plan->tmp_size;
    for (size_t i = STOCK_TMP; i < COUNT; i++)
        close_fd_of(&stock[i].fd);
}

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
