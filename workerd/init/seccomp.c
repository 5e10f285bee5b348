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
#define DENY(call) UNLESS(BPF_JEQ, __NR_##call, 1), REFUSE(EPERM)

static const struct sock_filter FILTER[] = {
    LOAD(arch),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCH, 1, 0),
    RETURN(SECCOMP_RET_KILL_PROCESS),
    LOAD(nr),
#ifdef __x86_64__
    UNLESS(BPF_JGE, X32_BIT, 1), RETURN(SECCOMP_RET_KILL_PROCESS),
#endif
    UNLESS(BPF_JGT, LAST_KNOWN, 1), REFUSE(ENOSYS),
    UNLESS(BPF_JEQ, __NR_clone3, 1), REFUSE(ENOSYS),
    /* by their arguments, so the kernel runs the filter each time: first of all (the answers
     * for all others it keeps) */
    UNLESS(BPF_JEQ, __NR_ioctl, 5), LOAD_LOW(1),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TIOCSTI, 1, 0), UNLESS(BPF_JEQ, 0x541c /* TIOCLINUX */, 1), REFUSE(EPERM),
    RETURN(SECCOMP_RET_ALLOW),
    UNLESS(BPF_JEQ, __NR_fcntl, 5), LOAD_LOW(1), /* root's leases, of files that are everybody's too, hold up all others */
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_SETLEASE, 1, 0), UNLESS(BPF_JEQ, F_SETDELEG, 1), REFUSE(EPERM),
    RETURN(SECCOMP_RET_ALLOW),
    UNLESS(BPF_JEQ, __NR_clone, 4), LOAD_LOW(0),
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NEW_NAMESPACES, 0, 1), REFUSE(EPERM), RETURN(SECCOMP_RET_ALLOW),
    UNLESS(BPF_JEQ, __NR_socket, 5), LOAD_LOW(0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_ALG, 1, 0), UNLESS(BPF_JEQ, AF_VSOCK, 1), REFUSE(EPERM),
    RETURN(SECCOMP_RET_ALLOW),
    UNLESS(BPF_JEQ, __NR_personality, 5), LOAD_LOW(0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xffffffff, 2, 0),
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, ~HARMLESS_PERSONALITY, 0, 1), REFUSE(EPERM), RETURN(SECCOMP_RET_ALLOW),
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
    RETURN(SECCOMP_RET_ALLOW),
};

void seccomp_install(void) {
    struct sock_fprog program = {.len = sizeof FILTER / sizeof *FILTER, .filter = (struct sock_filter *)FILTER};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
        fail("seccomp", "");
}
