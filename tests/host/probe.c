/* What attacking jobs do: one deed a call, its result on one line.
 *
 *   probe call NUMBER [ARG...]    a system call; ARG is a number or "text"; prints its
 *                                 result, or E and the errno
 *   probe deny NUMBER...          each with arguments of 0: "NUMBER ERRNO", in lines
 *   probe int80 | x32             getpid by the 32-bit gate, by the x32 table
 *   probe connect abstract|path NAME
 *   probe ptrace PID              attach
 *   probe caps                    effective capabilities
 *   probe loop | ioctls COUNT     nanoseconds for COUNT calls of getppid, of an ioctl that fails
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int tell(long result) {
    if (result < 0)
        printf("E%d\n", errno);
    else
        printf("%ld\n", result);
    return 0;
}

static int call(int argc, char **argv) {
    long args[6] = {0};
    for (int i = 3; i < argc && i < 9; i++) {
        char *end;
        args[i - 3] = (long)strtoull(argv[i], &end, 0);
        if (*end != '\0')
            args[i - 3] = (long)argv[i];
    }
    return tell(syscall(strtol(argv[2], NULL, 0), args[0], args[1], args[2], args[3], args[4], args[5]));
}

static int deny(int argc, char **argv) {
    for (int i = 2; i < argc; i++) {
        long result = syscall(strtol(argv[i], NULL, 0), 0, 0, 0, 0, 0, 0);
        printf("%s %d\n", argv[i], result < 0 ? errno : 0);
    }
    return 0;
}

static int by_int80(void) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory");
    return tell(result);
#else
    return 77;
#endif
}

static int by_x32(void) { return tell(syscall(0x40000000 | SYS_getpid)); }

static int connect_to(const char *kind, const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int is_abstract = strcmp(kind, "abstract") == 0;
    strncpy(address.sun_path + is_abstract, name, sizeof address.sun_path - 2);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + is_abstract + strlen(name));
    return tell(connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, length));
}

static int caps(void) {
    char line[128];
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (strncmp(line, "CapEff", 6) == 0 || strncmp(line, "CapPrm", 6) == 0)
            fputs(line, stdout);
    printf("uid %d\n", (int)geteuid());
    return 0;
}

static int loop(long count, int is_ioctl) {
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long i = 0; i < count; i++)
        is_ioctl ? syscall(SYS_ioctl, -1, 0, 0) : syscall(SYS_getppid);
    clock_gettime(CLOCK_MONOTONIC, &to);
    return tell((to.tv_sec - from.tv_sec) * 1000000000l + to.tv_nsec - from.tv_nsec);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *deed = argc > 1 ? argv[1] : "";
    if (argc > 2 && strcmp(deed, "call") == 0)
        return call(argc, argv);
    if (strcmp(deed, "deny") == 0)
        return deny(argc, argv);
    if (strcmp(deed, "int80") == 0)
        return by_int80();
    if (strcmp(deed, "x32") == 0)
        return by_x32();
    if (argc == 4 && strcmp(deed, "connect") == 0)
        return connect_to(argv[2], argv[3]);
    if (argc == 3 && strcmp(deed, "ptrace") == 0)
        return tell(ptrace(PTRACE_ATTACH, atoi(argv[2]), 0, 0));
    if (strcmp(deed, "caps") == 0)
        return caps();
    if (argc == 3 && (strcmp(deed, "loop") == 0 || strcmp(deed, "ioctls") == 0))
        return loop(atol(argv[2]), deed[0] == 'i');
    return 64;
}
