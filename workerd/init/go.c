/* The daemon's word that the command may run: one message through a SOCK_SEQPACKET socket,
 * with the descriptors of the log and of its index. Until then PID 1 does what does not
 * depend on it; meanwhile the daemon commits the job's record, and moves its network in.
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
    int fds[2];
    struct cmsghdr *control = CMSG_FIRSTHDR(header);
    if ((header->msg_flags & MSG_CTRUNC) || control == NULL || control->cmsg_level != SOL_SOCKET ||
        control->cmsg_type != SCM_RIGHTS || control->cmsg_len != CMSG_LEN(sizeof fds))
        return false;
    memcpy(fds, CMSG_DATA(control), sizeof fds);
    plan->log_fd = fds[0];
    plan->index_fd = fds[1];
    return true;
}

void go_wait(struct plan *plan) {
    if (plan->go_fd < 0)
        return;
    union {
        char space[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    char word;
    struct iovec part = {&word, sizeof word};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control,
    };
    ssize_t got;
    while ((got = recvmsg(plan->go_fd, &header, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ;
    if (got < 0)
        fail("go", "");
    if (got == 0)
        fail_errno("go", ECANCELED, "");
    if (!take_files(&header, plan)) /* no descriptor is free, say */
        fail_errno("go", EMFILE, "");
    close(plan->go_fd);
}
