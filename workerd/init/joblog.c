/* A job's log, its index, and how much of both is kept.
 *
 * log:   the bytes as they came, both streams; offsets never change; the oldest bytes
 *        are released by punching holes once log and index take more than the cap.
 * index: a 64-byte header, then records of 32 bytes (workerd/output.py reads them).
 *        A record grows in place while its stream stays the same within a millisecond
 *        of its beginning. Records' times never go back. The next try of a job goes on
 *        where the index of its last one ends.
 *
 * What must hold. Data is in the log before a record speaks of it. Readers learn of
 * the new beginning before the bytes are gone. Whatever cannot be stored (a full disk,
 * a file system that cannot punch holes once the cap is reached) is counted in `lost`
 * and has no place in the log: what is stored is whole from `kept_from` to `end`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "init.h"

#define MERGE_NS 1000000u
#define SLACK (256u << 10) /* released in steps of this, and so kept above the cap at most */
#define LEAST_CAP 4096u
#define BLOCK 4096u
#define RECORD_SIZE sizeof(struct log_record)

struct __attribute__((packed)) index_header {
    char magic[8];
    uint64_t kept_from, first_record, lost, flags;
    char reserved[24];
};
_Static_assert(sizeof(struct index_header) == 64, "the layout is a contract");
_Static_assert(sizeof(struct log_record) == 32, "the layout is a contract");

/* MORE, set by the daemon: the job may be tried again, so it says COMPLETE itself. */
enum { COMPLETE = 1, MORE = 2 };

static bool write_header(const struct joblog *log, uint64_t flags) {
    const struct index_header header = {
        .magic = "WKIDX001",
        .kept_from = log->kept_from,
        .first_record = log->first_record,
        .lost = log->lost,
        .flags = flags | log->more,
    };
    return pwrite(log->index_fd, &header, sizeof header, 0) == sizeof header;
}

static uint64_t record_place(uint64_t number) { return sizeof(struct index_header) + number * RECORD_SIZE; }

static bool write_record(const struct joblog *log, uint64_t number, const struct log_record *record) {
    return pwrite(log->index_fd, record, RECORD_SIZE, (off_t)record_place(number)) == RECORD_SIZE;
}

static bool read_record(const struct joblog *log, uint64_t number, struct log_record *record) {
    return pread(log->index_fd, record, RECORD_SIZE, (off_t)record_place(number)) == RECORD_SIZE;
}

/* fallocate(2): EOPNOTSUPP where the file system cannot punch holes, even in an empty file. */
static bool punch(int fd, uint64_t from, uint64_t to) {
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from)) == 0;
}

/* What no record speaks of (PID 1 of the last try was killed) was never part of the
 * output: the next bytes are written over it. */
static void go_on(struct joblog *log) {
    struct index_header header;
    const off_t size = lseek(log->index_fd, 0, SEEK_END);
    if (size < (off_t)sizeof header || pread(log->index_fd, &header, sizeof header, 0) != sizeof header)
        return;
    log->kept_from = log->end = header.kept_from;
    log->first_record = header.first_record;
    log->lost = header.lost;
    log->more = header.flags & MORE;
    log->records = ((uint64_t)size - sizeof header) / RECORD_SIZE;
    if (log->records > 0 && read_record(log, log->records - 1, &log->last)) {
        log->end = log->last.offset + log->last.length;
        log->clock_ahead = (int64_t)log->last.time - (int64_t)clock_ns(CLOCK_BOOTTIME);
    }
    log->punched = log->kept_from & ~(uint64_t)(BLOCK - 1);
    const uint64_t index_kept = record_place(log->first_record) & ~(uint64_t)(BLOCK - 1);
    log->index_punched = index_kept > BLOCK ? index_kept - BLOCK : 0;
    /* Not where it changes nothing: ext4 takes a log cut to nothing for one that is being
     * replaced, and writes all of it to the disk when anybody closes it (auto_da_alloc). */
    if (lseek(log->fd, 0, SEEK_END) > (off_t)log->end && ftruncate(log->fd, (off_t)log->end) < 0)
        fail("output", "");
}

void log_open(struct joblog *log, int log_fd, int index_fd, uint64_t cap) {
    *log = (struct joblog){.fd = log_fd, .index_fd = index_fd, .cap = cap < LEAST_CAP ? LEAST_CAP : cap};
    go_on(log);
    const uint64_t past = (log->end + BLOCK - 1) & ~(uint64_t)(BLOCK - 1);
    log->fixed = !punch(log_fd, past, past + BLOCK) && errno == EOPNOTSUPP;
    if (!write_header(log, 0))
        fail("output", "");
}

/* Wall-clock time, but for steps back: readers search the records by time. */
static uint64_t stamp(struct joblog *log) {
    int64_t boot = (int64_t)clock_ns(CLOCK_BOOTTIME), ahead = (int64_t)clock_ns(CLOCK_REALTIME) - boot;
    if (ahead > log->clock_ahead)
        log->clock_ahead = ahead;
    return (uint64_t)(boot + log->clock_ahead);
}

bool log_append(struct joblog *log, uint32_t stream, uint64_t length) {
    struct log_record record = log->last;
    uint64_t now = stamp(log), number = log->records;
    if (number > 0 && record.stream == stream && now - record.time < MERGE_NS) {
        number--;
        record.length += length;
    } else {
        record = (struct log_record){.offset = log->end, .length = length, .time = now, .stream = stream};
    }
    if (!write_record(log, number, &record))
        return false;
    log->last = record;
    log->records = number + 1;
    log->end += length;
    return true;
}

void log_lose(struct joblog *log, uint64_t length) {
    log->lost += length;
    write_header(log, 0);
}

/* Where the log would begin if record `number` were the first one kept. */
static int64_t begin_with(const struct joblog *log, uint64_t number) {
    return (int64_t)(log->end - log->cap + (log->records - number) * RECORD_SIZE);
}

/* The first record of which at least a part can be kept: of the last one, always. */
static struct log_record first_to_keep(const struct joblog *log, uint64_t *number) {
    uint64_t low = log->first_record, high = log->records - 1;
    struct log_record record, found = log->last;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (read_record(log, middle, &record) && begin_with(log, middle) < (int64_t)(record.offset + record.length)) {
            high = middle;
            found = record;
        } else {
            low = middle + 1;
        }
    }
    *number = high;
    return found;
}

static void release_log(struct joblog *log) {
    uint64_t to = log->kept_from & ~(uint64_t)(BLOCK - 1);
    if (to > log->punched && punch(log->fd, log->punched, to))
        log->punched = to;
}

/* The header's block stays. */
static void release_index(struct joblog *log) {
    uint64_t from = BLOCK + log->index_punched, to = record_place(log->first_record) & ~(uint64_t)(BLOCK - 1);
    if (to > from && punch(log->index_fd, from, to))
        log->index_punched = to - BLOCK;
}

static void release(struct joblog *log) {
    const struct log_record first = first_to_keep(log, &log->first_record);
    int64_t begin = begin_with(log, log->first_record);
    if (begin < (int64_t)first.offset)
        begin = (int64_t)first.offset;
    if ((uint64_t)begin > log->kept_from)
        log->kept_from = (uint64_t)begin;
    write_header(log, 0);
    release_log(log);
    release_index(log);
}

/* Bytes on the disk, to a block or two. */
static uint64_t disk_use(const struct joblog *log) {
    return log->end - log->punched + record_place(log->records) - log->index_punched;
}

bool log_room(struct joblog *log) {
    if (disk_use(log) <= log->cap + SLACK)
        return true;
    if (log->fixed)
        return false;
    release(log);
    return disk_use(log) <= log->cap + SLACK;
}

void log_close(struct joblog *log) {
    log_room(log);
    write_header(log, log->more ? 0 : COMPLETE);
}
