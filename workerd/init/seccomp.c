/* The system calls that a job may not make: a deny list, after the well-known container
 * profile. A denied call gives EPERM; what the kernel or we do not know gives ENOSYS, so
 * that programs fall back; a foreign architecture (32-bit, x32) ends the process, since
 * its numbers mean other calls.
 */
#define _GNU_SOURCE
#include <asm/unistd.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "the seccomp filter has no table for this architecture"
#endif

#define X32_BIT 0x40000000u
#define LAST_KNOWN 462 /* mseal; numbers past it are newer than this list */
#define NEW_NAMESPACES                                                                                              \
    (CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP)
/* PER_LINUX, PER_LINUX32, UNAME26; no random addresses, for debuggers: personality(2) */
#define HARMLESS_PERSONALITY 0x60008u
#ifndef AF_VSOCK
#define AF_VSOCK 40
#endif
#ifndef F_SETLEASE
#define F_SETLEASE 1024
#endif
#ifndef F_SETDELEG
#define F_SETDELEG 1040 /* Linux 6.19 */
#endif
#ifndef AF_ALG
#define AF_ALG 38
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
/* The kernel takes an int or a 32-bit command here: only the low half counts
 * (CVE-2019-10063). Both architectures are little endian. */
#define LOAD_LOW(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, args[n]))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, (value))
#define REFUSE(err) RETURN(SECCOMP_RET_ERRNO | (err))
#define UNLESS(test, value, skip) BPF_JUMP(BPF_JMP | (test) | BPF_K, (uint32_t)(value), 0, (skip))
#define IF(test, value, skip) BPF_JUMP(BPF_JMP | (test) | BPF_K, (uint32_t)(value), (skip), 0)

static const struct sock_filter ENTRY[] = {
    LOAD(arch),
    IF(BPF_JEQ, NATIVE_ARCH, 1), RETURN(SECCOMP_RET_KILL_PROCESS),
    LOAD(nr),
#ifdef __x86_64__
    UNLESS(BPF_JGE, X32_BIT, 1), RETURN(SECCOMP_RET_KILL_PROCESS),
#endif
    UNLESS(BPF_JGT, LAST_KNOWN, 1), REFUSE(ENOSYS),
};

/* What a call that is not simply allowed gets. Those that go by arguments are run each time; the
 * answers for all others the kernel finds out when the filter is installed, and keeps. */
enum answer { DENIED, UNKNOWN, IOCTL, FCNTL, CLONE, SOCKET, PERSONALITY, ANSWERS };

#define MOST_STEPS 5
static const struct sock_filter ANSWER[ANSWERS][MOST_STEPS] = {
    [DENIED] = {REFUSE(EPERM)},
    [UNKNOWN] = {REFUSE(ENOSYS)},
    [IOCTL] = {LOAD_LOW(1), IF(BPF_JEQ, TIOCSTI, 1), UNLESS(BPF_JEQ, 0x541c /* TIOCLINUX */, 1), REFUSE(EPERM),
               RETURN(SECCOMP_RET_ALLOW)},
    /* root's leases, of files that are everybody's too, hold up all others */
    [FCNTL] = {LOAD_LOW(1), IF(BPF_JEQ, F_SETLEASE, 1), UNLESS(BPF_JEQ, F_SETDELEG, 1), REFUSE(EPERM),
               RETURN(SECCOMP_RET_ALLOW)},
    [CLONE] = {LOAD_LOW(0), UNLESS(BPF_JSET, NEW_NAMESPACES, 1), REFUSE(EPERM), RETURN(SECCOMP_RET_ALLOW)},
    [SOCKET] = {LOAD_LOW(0), IF(BPF_JEQ, AF_ALG, 1), UNLESS(BPF_JEQ, AF_VSOCK, 1), REFUSE(EPERM),
                RETURN(SECCOMP_RET_ALLOW)},
    [PERSONALITY] = {LOAD_LOW(0), IF(BPF_JEQ, 0xffffffff, 2), UNLESS(BPF_JSET, ~HARMLESS_PERSONALITY, 1),
                     REFUSE(EPERM), RETURN(SECCOMP_RET_ALLOW)},
};

struct rule {
    uint32_t call;
    enum answer answer;
};

#define DENY(call) {__NR_##call, DENIED}

static struct rule rules[] = {
    {__NR_clone3, UNKNOWN}, {__NR_ioctl, IOCTL}, {__NR_fcntl, FCNTL}, {__NR_clone, CLONE}, {__NR_socket, SOCKET},
    {__NR_personality, PERSONALITY},
    /* mounts and namespaces */
    DENY(mount), DENY(umount2), DENY(pivot_root), DENY(move_mount), DENY(open_tree), DENY(fsopen), DENY(fsconfig),
    DENY(fsmount), DENY(fspick), DENY(mount_setattr), DENY(unshare), DENY(setns), DENY(chroot),
    /* kernel, time, devices */
    DENY(reboot), DENY(kexec_load), DENY(init_module), DENY(finit_module), DENY(delete_module), DENY(settimeofday),
    DENY(clock_settime), DENY(clock_adjtime), DENY(swapon), DENY(swapoff), DENY(acct), DENY(syslog),
    DENY(vhangup), DENY(quotactl), DENY(quotactl_fd), DENY(nfsservctl), DENY(lookup_dcookie), DENY(kexec_file_load),
    /* keys, tracing, and the kernel's largest attack surfaces */
    DENY(add_key), DENY(request_key), DENY(keyctl), DENY(bpf), DENY(perf_event_open), DENY(userfaultfd),
    DENY(io_uring_setup), DENY(io_uring_enter), DENY(io_uring_register), DENY(open_by_handle_at), DENY(kcmp),
    DENY(fanotify_init),
    /* which memory node: its owner is the job's cpuset */
    DENY(mbind), DENY(set_mempolicy), DENY(get_mempolicy), DENY(set_mempolicy_home_node), DENY(migrate_pages),
    DENY(move_pages),
#ifdef __x86_64__
    DENY(create_module), DENY(get_kernel_syms), DENY(query_module), DENY(uselib), DENY(ustat), DENY(sysfs),
    DENY(_sysctl), DENY(iopl), DENY(ioperm), DENY(modify_ldt),
#endif
};

#define RULES (sizeof rules / sizeof *rules)
#define LEAF 8 /* rules that are tried one by one: with fewer the program is longer, with more the way through it */

static struct sock_filter program[sizeof ENTRY / sizeof *ENTRY + 3 * RULES + ANSWERS * MOST_STEPS];
static unsigned short length;
static unsigned short compared[RULES]; /* where each rule's call is */
_Static_assert(sizeof program / sizeof *program <= 255 + sizeof ENTRY / sizeof *ENTRY, "every jump is 8 bits");

static void sort_rules(void) {
    for (size_t i = 1; i < RULES; i++)
        for (size_t at = i; at > 0 && rules[at - 1].call > rules[at].call; at--) {
            struct rule rule = rules[at];
            rules[at] = rules[at - 1];
            rules[at - 1] = rule;
        }
}

/* Those from `first` on, up to the one before `end`. */
static void search(size_t first, size_t end) {
    if (end - first > LEAF) {
        size_t middle = (first + end) / 2;
        unsigned short split = length++;
        search(first, middle);
        program[split] = (struct sock_filter)IF(BPF_JGE, rules[middle].call, (uint8_t)(length - split - 1));
        search(middle, end);
        return;
    }
    for (; first < end; first++)
        compared[first] = length++;
    program[length++] = (struct sock_filter)RETURN(SECCOMP_RET_ALLOW);
}

/* By halves, since the kernel goes through the program for each of its some 900 calls as it is
 * installed: a third of what a list takes, whose order would decide besides. */
void seccomp_build(void) {
    if (length > 0)
        return;
    for (size_t i = 0; i < sizeof ENTRY / sizeof *ENTRY; i++)
        program[length++] = ENTRY[i];
    sort_rules();
    search(0, RULES);
    for (enum answer answer = 0; answer < ANSWERS; answer++) {
        for (size_t i = 0; i < RULES; i++)
            if (rules[i].answer == answer)
                program[compared[i]] =
                    (struct sock_filter)IF(BPF_JEQ, rules[i].call, (uint8_t)(length - compared[i] - 1));
        for (size_t step = 0; step < MOST_STEPS && ANSWER[answer][step].code != 0; step++)
            program[length++] = ANSWER[answer][step];
    }
}

void seccomp_install(void) {
    seccomp_build();
    struct sock_fprog filter = {.len = length, .filter = program};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) < 0)
        fail("seccomp", "");
}
