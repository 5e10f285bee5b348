/* From the job's pipes into its log (joblog.c).
 *
 * Read and written, not spliced: a splice holds the pipe's lock while the file system
 * takes the bytes, so that the job cannot write meanwhile, and gives the file system
 * single pages. 2 GiB into a log on ext4 took twice the time and CPU (Linux 6.18).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "init.h"

#define MOVE_MAX (256u << 10) /* with joblog.c's slack: less than 1 MiB over the cap */
#define PIPE_FIRST 65536
#define PIPE_GROWN (1 << 20)

void output_open(struct output *out, const struct plan *plan, int write_ends[2]) {
    *out = (struct output){.pipes = {-1, -1}};
    for (int i = 0; i < 2; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
            fail("pipe", "");
        out->pipes[i] = ends[0];
        write_ends[i] = ends[1];
    }
    log_open(&out->log, plan->log_fd, plan->index_fd, plan->max_output);
}

static void end_of_stream(struct output *out, int which) {
    close(out->pipes[which]);
    out->pipes[which] = -1;
}

static void stored(struct output *out, int which, uint64_t length) {
    if (!log_append(&out->log, (uint32_t)which + 1, length))
        log_lose(&out->log, length);
}

/* How much of it the log took. */
static size_t write_log(const struct output *out, const char *data, size_t length) {
    size_t done = 0;
    while (done < length) {
        ssize_t wrote = pwrite(out->log.fd, data + done, length - done, (off_t)(out->log.end + done));
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            break;
        done += (size_t)wrote;
    }
    return done;
}

static void grow_pipe(struct output *out, int which) {
    out->grown[which] = true; /* a busy stream: fewer, larger moves; a refusal does not matter */
    fcntl(out->pipes[which], F_SETPIPE_SZ, PIPE_GROWN);
}

/* Moves what one pipe holds; what the log does not take is lost, and the job goes on.
 * False when there is nothing (more) to move now. */
bool output_move(struct output *out, int which) {
    static char buffer[MOVE_MAX]; /* a quiet job touches a page or two of it */
    if (out->pipes[which] < 0)
        return false;
    ssize_t got = read(out->pipes[which], buffer, sizeof buffer);
    if (got < 0)
        return errno == EINTR;
    if (got == 0) {
        end_of_stream(out, which);
        return false;
    }
    if (got >= PIPE_FIRST && !out->grown[which])
        grow_pipe(out, which);
    size_t wrote = log_room(&out->log) ? write_log(out, buffer, (size_t)got) : 0;
    if (wrote > 0)
        stored(out, which, wrote);
    if (wrote < (size_t)got)
        log_lose(&out->log, (size_t)got - wrote);
    return true;
}

/* What the pipes hold now, and no more: a descriptor that the job passed to a process
 * outside may have a writer still. */
static void drain(struct output *out, int which) {
    int held = 0;
    if (out->pipes[which] < 0 || ioctl(out->pipes[which], FIONREAD, &held) < 0)
        return;
    const uint64_t until = out->log.end + out->log.lost + (uint64_t)held;
    while (out->log.end + out->log.lost < until && output_move(out, which))
        ;
}

/* After the last process of the job is dead. */
void output_finish(struct output *out) {
    drain(out, 0);
    drain(out, 1);
    log_close(&out->log);
}
