/* LD_PRELOAD for the daemon: its wall clock is WORKER_CLOCK seconds off, as the text of
 * that file says at the time. Nothing else is. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    char text[32] = "";
    const char *path = getenv("WORKER_CLOCK");
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (clock != CLOCK_REALTIME || path == NULL)
        return result;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, text, sizeof text - 1) > 0)
            now->tv_sec += atol(text);
        close(fd);
    }
    return result;
}
