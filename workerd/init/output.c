/* From the job's pipes into its log and the log's index.
 *
 * log:   the bytes as they came, both streams; offsets never change; the oldest bytes
 *        are released by punching holes once more than the cap is kept.
 * index: a 64-byte header, then records of 32 bytes (workerctl/logview.py reads them).
 *        A record grows in place while its stream stays the same within a millisecond.
 *        Data is in the log before a record speaks of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "init.h"

#define SPLICE_MAX (1 << 20)
#define PIPE_FIRST 65536
#define PIPE_GROWN (1 << 20)
#define MERGE_NS 1000000u
#define PUNCH_STEP (256u << 10)

struct __attribute__((packed)) index_header {
    char magic[8];
    uint64_t kept_from, first_record, lost, flags;
    char reserved[24];
};
_Static_assert(sizeof(struct index_header) == 64, "the layout is a contract");

struct __attribute__((packed)) index_record {
    uint64_t offset, length, time;
    uint32_t stream, reserved;
};
_Static_assert(sizeof(struct index_record) == 32, "the layout is a contract");

enum { COMPLETE = 1 };

static void write_header(struct output *out, uint64_t flags) {
    struct index_header header = {
        .magic = "WKIDX001",
        .kept_from = out->kept_from,
        .first_record = out->first_record,
        .lost = out->lost,
        .flags = flags,
    };
    while (pwrite(out->index_fd, &header, sizeof header, 0) < 0 && errno == EINTR)
        ;
}

void output_open(struct output *out, const struct plan *plan, int write_ends[2]) {
    *out = (struct output){.log_fd = plan->log_fd, .index_fd = plan->index_fd, .cap = plan->max_output};
    for (int i = 0; i < 2; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
            fail("pipe", "");
        out->pipes[i] = ends[0];
        write_ends[i] = ends[1];
    }
    write_header(out, 0);
}

static uint64_t record_place(uint64_t number) { return sizeof(struct index_header) + number * sizeof(struct index_record); }

static void write_record(struct output *out) {
    struct index_record record = {out->record_offset, out->record_length, out->record_time, out->record_stream, 0};
    while (pwrite(out->index_fd, &record, sizeof record, (off_t)record_place(out->records - 1)) < 0 && errno == EINTR)
        ;
}

static void note(struct output *out, uint32_t stream, uint64_t length) {
    uint64_t now = clock_ns(CLOCK_REALTIME);
    bool same = out->records > 0 && out->record_stream == stream && now - out->record_time < MERGE_NS;
    if (same) {
        out->record_length += length;
    } else {
        out->records++;
        out->record_offset = out->end;
        out->record_length = length;
        out->record_time = now;
        out->record_stream = stream;
    }
    out->end += length;
    write_record(out);
}

/* The number of the first record that ends past `offset`, for the index's own hole. */
static uint64_t record_past(struct output *out, uint64_t offset) {
    uint64_t low = out->first_record, high = out->records - 1;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        struct index_record record;
        if (pread(out->index_fd, &record, sizeof record, (off_t)record_place(middle)) != sizeof record)
            return out->first_record;
        if (record.offset + record.length > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Readers learn of the new beginning before the bytes are gone. */
static void release(struct output *out) {
    if (out->end - out->kept_from <= out->cap + PUNCH_STEP)
        return;
    out->kept_from = (out->end - out->cap) & ~(uint64_t)4095;
    out->first_record = record_past(out, out->kept_from);
    write_header(out, 0);
    fallocate(out->log_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)out->kept_from);
    uint64_t place = record_place(out->first_record) & ~(uint64_t)4095;
    if (place > 4096)
        fallocate(out->index_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, (off_t)(place - 4096));
}

/* The log takes no more (disk full, say): the job goes on, the loss is counted. */
static bool discard(struct output *out, int which) {
    static char sink[65536];
    ssize_t got = read(out->pipes[which], sink, sizeof sink);
    if (got <= 0)
        return false;
    out->lost += (uint64_t)got;
    write_header(out, 0);
    return true;
}

/* Moves what one pipe holds. False when there is nothing (more) to move now. */
bool output_move(struct output *out, int which) {
    if (out->pipes[which] < 0)
        return false;
    loff_t place = (loff_t)out->end;
    ssize_t moved = splice(out->pipes[which], NULL, out->log_fd, &place, SPLICE_MAX, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (moved < 0 && errno == EINTR)
        return true;
    if (moved < 0 && errno == EAGAIN)
        return false;
    if (moved < 0)
        return discard(out, which);
    if (moved == 0) {
        close(out->pipes[which]);
        out->pipes[which] = -1;
        return false;
    }
    if (moved >= PIPE_FIRST && !out->grown[which]) {
        out->grown[which] = true; /* a busy stream: fewer, larger moves; a refusal does not matter */
        fcntl(out->pipes[which], F_SETPIPE_SZ, PIPE_GROWN);
    }
    note(out, (uint32_t)which + 1, (uint64_t)moved);
    release(out);
    return true;
}

/* After the last writer is dead: what is in the pipes is all there will be. */
void output_finish(struct output *out) {
    for (int which = 0; which < 2; which++)
        while (output_move(out, which))
            ;
    write_header(out, COMPLETE);
}
