/* The job's network interfaces, from inside its network namespace, and the two files of
 * /etc that go with them. What is outside (veth, bridge, rules) is workerd's. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "init.h"

#define JOB_INTERFACE "eth0" /* as workerd/bridge.py names the job's end of the veth */

static int inet_socket(void) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("network", "socket");
    return fd;
}

/* False and errno where it cannot be. */
bool network_loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    cleanup_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0;
}

static struct sockaddr inet_address(uint32_t address) {
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_addr.s_addr = address};
    struct sockaddr any;
    memcpy(&any, &inet, sizeof any);
    return any;
}

void network_configure(const struct plan *plan) {
    cleanup_fd int fd = inet_socket();
    struct ifreq request = {.ifr_name = JOB_INTERFACE};
    request.ifr_addr = inet_address(plan->address);
    if (ioctl(fd, SIOCSIFADDR, &request) < 0)
        fail("network", "address");
    request.ifr_netmask = inet_address(plan->netmask);
    if (ioctl(fd, SIOCSIFNETMASK, &request) < 0)
        fail("network", "netmask");
    request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_MULTICAST;
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        fail("network", "up");
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    route.rt_dst = route.rt_genmask = inet_address(INADDR_ANY);
    route.rt_gateway = inet_address(plan->gateway);
    if (ioctl(fd, SIOCADDRT, &route) < 0)
        fail("network", "default route");
}

/* Opened as root, before the view exists: they are the daemon's own, not the caller's. */
void network_collect_files(struct plan *plan) {
    for (size_t i = 0; i < plan->nfiles; i++) {
        struct own_file *file = &plan->files[i];
        file->tree = tree_clone(AT_FDCWD, file->source, 0, "network-file");
        tree_set(file->tree, SEALED, 0, false, "network-file", file->source);
    }
}

/* Over the name itself, also where that is a symbolic link (to /run/systemd/resolve,
 * say, which is not there for a job). A root tree without the file does without. */
void network_place_files(struct plan *plan) {
    for (size_t i = 0; i < plan->nfiles; i++) {
        struct own_file *file = &plan->files[i];
        cleanup_fd int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        cleanup_fd int target =
            open_beneath(root, file->target, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
        if (target >= 0)
            tree_attach(file->tree, target, "network-file", file->target);
        else if (errno != ENOENT && errno != ENOTDIR && errno != EXDEV && errno != ELOOP)
            fail("network-file", file->target);
        close(file->tree);
    }
}
