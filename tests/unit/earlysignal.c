/* For LD_PRELOAD: SIGINT comes in the instant before a call that waits. Of the process's
 * calls of recv(2) and poll(2), the one with the number that WORKER_EARLY_SIGNAL gives has
 * it before it enters the kernel, as any of them can. */

#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static void come_early(void) {
    static int calls;
    const char *wanted = getenv("WORKER_EARLY_SIGNAL");
    if (wanted != NULL && ++calls == atoi(wanted))
        (void)raise(SIGINT);
}

ssize_t recv(int fd, void *buffer, size_t size, int flags) {
    come_early();
    return syscall(SYS_recvfrom, fd, buffer, size, flags, NULL, NULL);
}

int poll(struct pollfd *fds, nfds_t count, int timeout) {
    struct timespec left = {timeout / 1000, timeout % 1000 * 1000000L};
    come_early();
    return (int)syscall(SYS_ppoll, fds, count, timeout < 0 ? NULL : &left, NULL, 0);
}
