/* The list of the mounts below our root (proc_pid_mountinfo(5)), and the way to each of them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "init.h"

bool below(const char *path, const char *top) {
    size_t length = strcmp(top, "/") == 0 ? 0 : strlen(top);
    return strncmp(path, top, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

/* The next word of a line; \040 and the like become what they stand for. */
static char *next_word(char **line) {
    char *word = *line, *to = word, *from = word;
    while (*from != ' ' && *from != '\0') {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] != '\0' && from[3] != '\0') {
            *to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *line = *from == '\0' ? from : from + 1;
    *to = '\0';
    return word;
}

static void parse_line(char *line, struct host_mount *mount) {
    mount->id = strtoul(next_word(&line), NULL, 10);
    mount->parent = strtoul(next_word(&line), NULL, 10);
    char *number = next_word(&line), *rest;
    unsigned int major_number = (unsigned int)strtoul(number, &rest, 10);
    mount->device = makedev(major_number, (unsigned int)strtoul(rest + (*rest == ':'), NULL, 10));
    mount->root = next_word(&line);
    mount->point = next_word(&line);
    mount->withheld = mount->leads_out = false;
    for (const char *word; *line != '\0' && strcmp(word = next_word(&line), "-") != 0;)
        mount->withheld = mount->withheld || strcmp(word, "unbindable") == 0;
    mount->type = next_word(&line);
}

const char *mountlist_read(struct mount_list *list) {
    cleanup_fd int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t got = -1;
    while (fd >= 0 && (got = read(fd, list->text + length, sizeof list->text - 1 - length)) > 0)
        length += (size_t)got;
    if (got < 0)
        return "/proc/self/mountinfo";
    list->text[length] = '\0';
    list->count = 0;
    for (char *line = list->text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        if (list->count == MAX_HOST_MOUNTS)
            break;
        parse_line(line, &list->mounts[list->count++]);
    }
    if (length == sizeof list->text - 1 || list->count == MAX_HOST_MOUNTS)
        return errno = E2BIG, "more mounts on this host than can be looked through";
    return NULL;
}

static struct host_mount *find(struct mount_list *list, unsigned long id) {
    for (size_t i = 0; i < list->count; i++)
        if (list->mounts[i].id == id)
            return &list->mounts[i];
    return NULL;
}

/* What it lies on; NULL where that is not below our root. */
struct host_mount *mountlist_ground(struct mount_list *list, const struct host_mount *mount) {
    return mount->parent == mount->id ? NULL : find(list, mount->parent);
}

static bool is_covered(const struct mount_list *list, const struct host_mount *mount) {
    for (size_t i = 0; i < list->count; i++)
        if (list->mounts[i].parent == mount->id && strcmp(list->mounts[i].point, mount->point) == 0)
            return strcmp(mount->point, "/") != 0;
    return false;
}

/* Both lie on the same mount, and the way to the one leads into the other. */
static bool is_in_the_way(const struct host_mount *other, const struct host_mount *mount) {
    return other != mount && other->parent == mount->parent && below(mount->point, other->point) && strcmp(other->point, "/") != 0;
}

/* The outermost place where another lies over it, or over what it lies on; NULL where its path
 * leads to it. All such places are on that path, so that the outermost has the shortest name.
 * What lies over our root is in nobody's way: we are beneath it. */
const char *mountlist_hidden_by(struct mount_list *list, const struct host_mount *mount) {
    const char *place = is_covered(list, mount) ? mount->point : NULL;
    for (size_t levels = 0; mount != NULL && levels < list->count; levels++, mount = mountlist_ground(list, mount))
        for (size_t i = 0; i < list->count; i++) {
            const struct host_mount *other = &list->mounts[i];
            if (is_in_the_way(other, mount) && (place == NULL || strlen(other->point) < strlen(place)))
                place = other->point;
        }
    return place;
}

/* No symbolic links; `at` is closed. Apart, for what it takes of the stack stays PID 1's for good. */
__attribute__((noinline)) static int go_into(int at, const char *path, size_t length) {
    char part[PATH_MAX];
    cleanup_fd int from = at;
    snprintf(part, sizeof part, "%.*s", (int)length, path);
    return open_beneath(from, length == 0 ? "/" : part, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
}

/* Where to look up the rest of a path, since the kernel takes no longer one at once: a descriptor
 * or AT_FDCWD; -1 and errno. */
static int go_far(const char **path) {
    int at = AT_FDCWD;
    while (at != -1 && strlen(*path) >= PATH_MAX) {
        size_t length = (size_t)((const char *)memrchr(*path, '/', PATH_MAX - 1) - *path);
        at = go_into(at, *path, length);
        *path += length + 1;
    }
    return at;
}

int mountlist_open_place(const char *path) {
    cleanup_fd int at = go_far(&path);
    return at == -1 ? -1 : open_beneath(at, path, O_PATH, RESOLVE_NO_SYMLINKS);
}

int mountlist_open_above(const char *path, const char **name) {
    int at = go_far(&path);
    const char *slash = strrchr(path, '/');
    *name = slash == NULL ? path : slash + 1;
    return at == -1 || slash == NULL ? at : go_into(at, path, (size_t)(slash - path));
}

/* Which of the mounts it is on; 0 where that is not known. Nothing else is asked for, and nobody
 * who would have to answer: a FUSE's server. `struct statx` of an older libc lacks the field. */
uint64_t mount_id(int fd) {
    enum { NOTHING_ELSE = 0, MOUNT_ID = 0x1000 /* since Linux 5.8 */, MASK = 0, ID = 18 /* stx_mnt_id, at 144 bytes */ };
    uint64_t answer[32] = {0};
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, NOTHING_ELSE, answer) < 0)
        return 0;
    return (uint32_t)answer[MASK] & MOUNT_ID ? answer[ID] : 0;
}

struct host_mount *mountlist_top(struct mount_list *list, const char *place, int fd) {
    struct host_mount *top = fd < 0 ? NULL : find(list, mount_id(fd));
    return top != NULL && strcmp(top->point, place) == 0 ? top : NULL;
}

int mountlist_open(struct mount_list *list, const struct host_mount *mount) {
    int fd = mountlist_open_place(mount->point);
    if (mountlist_top(list, mount->point, fd) != mount)
        close_fd_of(&fd);
    return fd;
}
