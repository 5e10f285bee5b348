/* The job's terminal (-t): a pty of its own devpts.
 *
 * The master stays here. What the job writes goes from it into the pipe that stands
 * for standard output, and so into the log like any output: clients follow that, and
 * nobody else ever reads the master. What clients type comes through a FIFO, which any
 * later daemon can open again by its name, and goes to the master as fast as the job
 * takes it. PID 1 keeps the slave open as well: a terminal that nobody has open just
 * now is no end of output (pty(7): the master would read EIO, and poll for ever).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <termios.h>
#include <unistd.h>

#include "init.h"

#define TTY_GROUP 5 /* as devpts is mounted with: write(1) and its like */

static struct {
    int master, slave;
    int input;             /* the FIFO, -1 without a terminal */
    int output;            /* the write end of the pipe of standard output */
    char typed[4096];      /* of the FIFO, not yet taken by the terminal */
    size_t from, to;
} tty = {.master = -1, .slave = -1, .input = -1, .output = -1};

static int open_master(void) {
    struct statfs fs;
    int fd = open_beneath(AT_FDCWD, "/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, RESOLVE_NO_SYMLINKS);
    if (fd < 0 || fstatfs(fd, &fs) < 0)
        fail("terminal", "/dev/pts/ptmx");
    if (fs.f_type != DEVPTS_SUPER_MAGIC)
        fail_errno("terminal", ENODEV, "/dev/pts/ptmx");
    return fd;
}

static int open_slave(const struct plan *plan) {
    int unlocked = 0;
    if (ioctl(tty.master, TIOCSPTLCK, &unlocked) < 0)
        fail("terminal", "unlock");
    int fd = ioctl(tty.master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fchown(fd, plan->uid, TTY_GROUP) < 0)
        fail("terminal", "slave");
    return fd;
}

static void set_modes(void) {
    struct termios modes;
    if (tcgetattr(tty.slave, &modes) < 0)
        fail("terminal", "modes");
    modes.c_iflag |= IUTF8; /* erase takes a whole character */
    if (tcsetattr(tty.slave, TCSANOW, &modes) < 0)
        fail("terminal", "modes");
}

/* `streams` are the write ends of the output pipes; from here on the command's are the
 * terminal. */
void tty_open(const struct plan *plan, int streams[2]) {
    if (plan->tty_fd < 0)
        return;
    tty.input = plan->tty_fd;
    tty.master = open_master();
    tty.slave = open_slave(plan);
    set_modes();
    tty_resize(plan->window);
    tty.output = streams[0];
    close(streams[1]);
    for (int i = 0; i < 2; i++)
        if ((streams[i] = fcntl(tty.slave, F_DUPFD_CLOEXEC, 3)) < 0)
            fail("terminal", "slave");
}

/* A size that it has already is no change, and the job is sent no SIGWINCH (tty_ioctl(4)). */
void tty_resize(uint32_t window) {
    struct winsize size = {.ws_row = (unsigned short)(window >> 16), .ws_col = (unsigned short)window};
    if (tty.master >= 0)
        ioctl(tty.master, TIOCSWINSZ, &size);
}

void tty_poll(struct pollfd fds[2]) {
    bool full = tty.from < tty.to;
    fds[0] = (struct pollfd){.fd = tty.master, .events = (short)(POLLIN | (full ? POLLOUT : 0))};
    fds[1] = (struct pollfd){.fd = full ? -1 : tty.input, .events = POLLIN};
}

static void type(void) {
    if (tty.from == tty.to) {
        ssize_t got = read(tty.input, tty.typed, sizeof tty.typed);
        tty.from = 0;
        tty.to = got > 0 ? (size_t)got : 0;
    }
    if (tty.from < tty.to) {
        ssize_t taken = write(tty.master, tty.typed + tty.from, tty.to - tty.from);
        if (taken > 0)
            tty.from += (size_t)taken;
        else if (taken < 0 && errno != EAGAIN && errno != EINTR)
            tty.from = tty.to; /* hung up: there is nobody to type to */
    }
}

/* From the terminal to the pipe, which was emptied before: so it never blocks. */
static bool show(void) {
    char bytes[16384];
    ssize_t got = read(tty.master, bytes, sizeof bytes);
    if (got < 0 && errno == EINTR)
        return true;
    if (got <= 0)
        return false;
    for (char *at = bytes; got > 0;) {
        ssize_t moved = write(tty.output, at, (size_t)got);
        if (moved < 0)
            return false;
        at += moved;
        got -= moved;
    }
    return true;
}

void tty_serve(const struct pollfd fds[2], struct output *out) {
    if (fds[0].revents & POLLOUT || fds[1].revents != 0)
        type();
    if (fds[0].revents & (POLLIN | POLLHUP | POLLERR) && show())
        output_move(out, 0);
}

/* After the last writer is dead: all that it wrote, then the end of the pipe. A read
 * first waits for what is still on its way through the line discipline. */
void tty_finish(struct output *out) {
    if (tty.master < 0)
        return;
    close(tty.slave);
    while (show())
        output_move(out, 0);
    close(tty.output);
    close(tty.master);
    tty.master = -1;
}
