/* Has one system call fail: the Nth that the processes under test make once it is armed.
 *
 * Two programs are made of it (tests/host/faultlib.py). With -DPRELOAD it is a library for
 * the daemon's LD_PRELOAD, and counts in processes that called faults_on(). Else it is
 * linked into a worker-init whose libc calls go through it (-Wl,--wrap=NAME).
 * WORKER_FAULTS names a file that is shared with the test: it says which call fails and
 * how, and is told which one that was.
 *
 * A call is passed on by its six registers, whatever it is: x86_64 and aarch64. Left out
 * is what cannot fail so: close(2), clocks, signal masks.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct control {
    atomic_int at; /* 0: none is to fail */
    atomic_int error;
    atomic_int count;
    atomic_int fired;
    char name[48];
    char only[48]; /* no other call counts; empty: all do */
};

void *faults_map(const char *path);
static struct control *control;
static bool on;

/* The resident first stage learns of it with each plan, in the environment. */
static bool find_control(void) {
    const char *path = getenv("WORKER_FAULTS");
    static bool mapping; /* makes calls of its own */
    if (path != NULL && control == NULL && !mapping) {
        mapping = true;
        control = faults_map(path);
        mapping = false;
    }
    return path != NULL && control != NULL;
}

static bool fails(const char *name) {
    if (!on || !find_control() || atomic_load(&control->at) == 0)
        return false;
    if (control->only[0] != 0 && strcmp(control->only, name) != 0)
        return false;
    if (atomic_fetch_add(&control->count, 1) + 1 != atomic_load(&control->at))
        return false;
    strcpy(control->name, name);
    atomic_store(&control->fired, 1);
    return true;
}

#define SIX long a, long b, long c, long d, long e, long f

#ifdef PRELOAD
#define MINE(name) name
#define THEIRS(name)                               \
    static long (*theirs)(SIX);                    \
    if (theirs == NULL)                            \
        *(void **)&theirs = dlsym(RTLD_NEXT, #name)
#else
#define MINE(name) __wrap_##name
#define THEIRS(name)              \
    extern long __real_##name(SIX); \
    long (*theirs)(SIX) = __real_##name
#endif

#define FAILING(name, failed)                     \
    long MINE(name)(SIX);                         \
    long MINE(name)(SIX) {                        \
        THEIRS(name);                             \
        if (fails(#name)) {                       \
            errno = atomic_load(&control->error); \
            return failed;                        \
        }                                         \
        return theirs(a, b, c, d, e, f);          \
    }
#define CALL(name) FAILING(name, -1)
#define GIVES_NULL(name) FAILING(name, 0)
#define GIVES_ERROR(name) FAILING(name, atomic_load(&control->error))

#ifdef PRELOAD
CALL(open64) CALL(openat64) CALL(mkdir) CALL(rmdir) CALL(unlink) CALL(rename) CALL(mkfifo)
CALL(read) CALL(write) CALL(pread64) CALL(pwrite64) CALL(ftruncate64) CALL(fsync) CALL(fdatasync)
CALL(fchmod) CALL(fchown) CALL(fcntl64) CALL(stat64) CALL(lstat64) CALL(fstat64) CALL(readlink)
CALL(pipe2) CALL(memfd_create) CALL(accept4) CALL(recvmsg) CALL(sendmsg) CALL(socketpair)
CALL(epoll_ctl) CALL(waitid) CALL(waitpid) CALL(poll) CALL(syscall)
GIVES_NULL(opendir) GIVES_NULL(fdopendir)
GIVES_ERROR(posix_fallocate64) GIVES_ERROR(posix_spawn)

void faults_on(void);
void faults_on(void) { on = true; }
#else
CALL(chdir) CALL(clone) CALL(dup2) CALL(execvp) CALL(fallocate) CALL(fchdir) CALL(fchown) CALL(fcntl)
CALL(fstat) CALL(fstatfs) CALL(ftruncate) CALL(getrlimit) CALL(ioctl) CALL(kill) CALL(lseek) CALL(mkdirat)
CALL(mknodat) CALL(mount) CALL(open) CALL(pipe2) CALL(poll) CALL(prctl) CALL(pread) CALL(pwrite) CALL(read)
CALL(readlink) CALL(recvmsg) CALL(setpriority) CALL(setrlimit) CALL(setsid) CALL(sethostname) CALL(signalfd)
CALL(socket) CALL(splice) CALL(symlinkat) CALL(syscall) CALL(umount2) CALL(unshare)
CALL(waitid) CALL(write)
#endif

__attribute__((constructor)) static void prepare(void) {
    find_control();
#ifndef PRELOAD
    on = true;
#endif
}
