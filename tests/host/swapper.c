/* swapper LINK TARGET COUNT SECONDS: LINK is by turns the directory that it was and a
 * symbolic link to TARGET, by atomic exchange; prints how often. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char other[4096];
    long done = 0;
    if (argc != 5)
        return 64;
    snprintf(other, sizeof other, "%s.other", argv[1]);
    if (symlink(argv[2], other) < 0)
        return 1;
    time_t until = time(NULL) + atol(argv[4]);
    for (; done < atol(argv[3]) || time(NULL) < until; done++)
        if (renameat2(AT_FDCWD, argv[1], AT_FDCWD, other, 2 /* RENAME_EXCHANGE */) < 0)
            return 2;
    printf("%ld\n", done);
    return 0;
}
