/* How worker-init tells anything: the status pipe while it starts, the exit record
 * at the end. One failure is told once, in both, by whichever process met it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "init.h"

/* The exit record, 252 bytes, little endian, as workerd/exitrecord.py reads it. */
struct __attribute__((packed)) exit_record {
    char magic[8];
    uint32_t kind; /* 1: the command ran and ended; 2: it never ran; 3: it is about to run */
    uint32_t code; /* as si_code of waitid(2): 1 exited, 2 killed, 3 dumped */
    uint32_t status;
    uint32_t err;
    uint64_t started_ns, finished_ns, duration_ns;
    uint64_t output_end, output_lost;
    char step[24];
    char detail[160];
    uint32_t checksum; /* CRC-32 of all before it */
};
_Static_assert(sizeof(struct exit_record) == 252, "the layout is a contract");

static const struct plan *the_plan;
static int endings_fd = -1; /* where the daemon hears that a job is over, and the kernel says whose */
static bool in_command; /* between vfork and exec: shares memory with PID 1 */
static struct failure {
    volatile bool set;
    int err;
    char step[24];
    char detail[160];
} failure;

void close_fd_of(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t crc32(const void *data, size_t length) {
    uint32_t crc = ~0u;
    for (const unsigned char *at = data; length-- > 0; at++) {
        crc ^= *at;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0xedb88320u & -(crc & 1));
    }
    return ~crc;
}

void report_init(const struct plan *plan) { the_plan = plan; }
void report_ends_to(int fd) { endings_fd = fd; }
void report_from_command(void) { in_command = true; }

/* False where a daemon that listens cannot be told. Memory for it may be there the next
 * time. One that has died meanwhile (EPIPE) need not be: its next life finds PID 1 in the
 * job's cgroup, and may have done so by now. */
static bool write_status(const char *line, size_t length) {
    for (int tries = 0; tries < 100; tries++)
        if (write(the_plan->status_fd, line, length) >= 0 || errno == EPIPE)
            return true;
    return false;
}

void report_pid(pid_t pid) {
    char line[32];
    int length = snprintf(line, sizeof line, "pid %d\n", (int)pid);
    if (!write_status(line, (size_t)length))
        kill(pid, SIGKILL); /* nobody may know of it */
}

/* End of file on the status pipe: the command runs. */
void report_running(void) { close(the_plan->status_fd); }

bool report_command_failed(void) {
    in_command = false;
    return failure.set;
}

static void write_record(struct exit_record *record) {
    memcpy(record->magic, "WKEXIT01", 8);
    record->checksum = crc32(record, offsetof(struct exit_record, checksum));
    while (pwrite(the_plan->exit_fd, record, sizeof *record, 0) < 0 && errno == EINTR)
        ;
}

/* Whatever becomes of us from here on: the command may have run. */
void report_starting(void) {
    struct exit_record record = {.kind = 3, .started_ns = clock_ns(CLOCK_REALTIME)};
    write_record(&record);
}

void report_exit(int code, int status, const struct exit_times *times, uint64_t output_end, uint64_t lost) {
    struct exit_record record = {
        .kind = 1, .code = (uint32_t)code, .status = (uint32_t)status,
        .started_ns = times->started_ns, .finished_ns = times->finished_ns, .duration_ns = times->duration_ns,
        .output_end = output_end, .output_lost = lost,
    };
    write_record(&record);
}

/* All but our own end. A daemon that does not hear of it sees that. */
void report_over(void) {
    if (endings_fd >= 0)
        send(endings_fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void note_failure(struct failure *noted, const char *step, int err, const char *detail) {
    noted->err = err;
    strncpy(noted->step, step, sizeof noted->step - 1);
    strncpy(noted->detail, detail, sizeof noted->detail - 1);
    for (char *at = noted->detail; *at != '\0'; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?'; /* the status is lines */
    noted->set = true;
}

static void tell_failure(const struct failure *told) {
    struct exit_record record = {.kind = 2, .err = (uint32_t)told->err, .finished_ns = clock_ns(CLOCK_REALTIME)};
    memcpy(record.step, told->step, sizeof record.step);
    memcpy(record.detail, told->detail, sizeof record.detail);
    write_record(&record);
    char line[256];
    int length = snprintf(line, sizeof line, "error %s %d %s\n", told->step, told->err, told->detail);
    write_status(line, (size_t)length);
}

_Noreturn void report_start_failure(void) {
    tell_failure(&failure);
    _exit(125);
}

void report_refusal(const char *step, int err, const char *detail) {
    struct failure refusal = {0};
    note_failure(&refusal, step, err, detail);
    tell_failure(&refusal);
}

_Noreturn void fail_errno(const char *step, int err, const char *detail) {
    note_failure(&failure, step, err, detail);
    if (in_command)
        _exit(125); /* PID 1 tells it */
    report_start_failure();
}

_Noreturn void fail(const char *step, const char *detail) { fail_errno(step, errno, detail); }
