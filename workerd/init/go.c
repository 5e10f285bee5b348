/* The daemon's word that the command may run: one message through a SOCK_SEQPACKET socket, with
 * the descriptors of all that the daemon made meanwhile: the log and its index, the exit record, the
 * control FIFO, and where the job has a terminal, the FIFO of what is typed there. Until then PID 1
 * does what does not depend on it; the daemon commits the job's record, too, and moves its network in. So that
 * it need not know of PID 1 from others, that announces itself, and the kernel says who it is.
 * End of file is a refusal: the job was not recorded, or the daemon has died.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "init.h"

static bool take_files(struct msghdr *header, struct plan *plan) {
    int *const slots[] = {&plan->log_fd, &plan->index_fd, &plan->exit_fd, &plan->control_fd, &plan->tty_fd};
    const size_t all = sizeof slots / sizeof *slots, count = plan->controlling ? all : all - 1;
    struct cmsghdr *control = CMSG_FIRSTHDR(header);
    if ((header->msg_flags & MSG_CTRUNC) || control == NULL || control->cmsg_level != SOL_SOCKET ||
        control->cmsg_type != SCM_RIGHTS || control->cmsg_len != CMSG_LEN(count * sizeof(int)))
        return false;
    for (size_t i = 0; i < all && i < count; i++)
        memcpy(slots[i], CMSG_DATA(control) + i * sizeof(int), sizeof(int));
    return true;
}

void go_announce(const struct plan *plan) { send(plan->go_fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT); }

void go_wait(struct plan *plan) {
    union {
        char space[CMSG_SPACE(5 * sizeof(int))];
        struct cmsghdr align;
    } control;
    char word;
    struct iovec part = {&word, sizeof word};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control,
    };
    ssize_t got;
    do /* ECONNRESET comes once, before the word: the daemon has closed its end, and not read that we are here */
        got = recvmsg(plan->go_fd, &header, MSG_CMSG_CLOEXEC);
    while (got < 0 && (errno == EINTR || errno == ECONNRESET));
    if (got < 0)
        fail("go", "");
    if (got == 0)
        fail_errno("go", ECANCELED, "");
    if (!take_files(&header, plan)) /* no descriptor is free, say */
        fail_errno("go", EMFILE, "");
    close(plan->go_fd);
}
