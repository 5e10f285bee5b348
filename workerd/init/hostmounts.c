/* What of the host's mounts no job may see, wherever on the host it is mounted: kernel file
 * systems (a chroot's own /proc would show /proc/PID/root of the caller's other processes),
 * second places of /run with its sockets, and what the daemon hides.
 *
 * All of it is done in a copy of the host's mounts (template.c), before anything is cloned
 * from there: so it holds for every tree that the view is made of. A mount is withheld by
 * making it unbindable (mount_namespaces(7)): no clone contains it, or can be taken from
 * it. A copy of the namespace may have forgotten that (since Linux 6.17 or so; 6.18 has), so
 * that it is done again there, but without a look at the list of mounts. Unmounting would do
 * as well, but each umount2 waits for a grace period of RCU, some 0.1 ms, and a host has dozens
 * of such mounts. What comes into being without a mount, the places that the daemon hides, is
 * looked for in PID 1, for each job.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "init.h"

#define MAX_HOST_MOUNTS 20000
#define MAX_PASSES 64

struct host_mount { /* a line of proc_pid_mountinfo(5) */
    unsigned long id, parent;
    dev_t device;
    const char *root, *point, *type;
    bool withheld; /* unbindable by now */
};

/* A withheld mount that lies on none: with it, all that lies on it is withheld. */
struct top {
    dev_t device;
    ino_t inode; /* of its root: whatever has these is to be withheld, wherever it has got to */
    char point[];
};

static char tops[64 << 10] __attribute__((aligned(4096))); /* one after the other, as `struct top` is aligned */
static size_t tops_used;

struct table { /* in memory of its own, given back before the job runs */
    size_t count;
    struct host_mount mounts[MAX_HOST_MOUNTS];
    char text[4 << 20];
};

static bool below(const char *path, const char *top) {
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
    mount->withheld = false;
    for (const char *word; *line != '\0' && strcmp(word = next_word(&line), "-") != 0;)
        mount->withheld = mount->withheld || strcmp(word, "unbindable") == 0;
    mount->type = next_word(&line);
}

/* NULL, or what is wrong, and errno. */
static const char *read_table(struct table *table) {
    cleanup_fd int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t got = -1;
    while (fd >= 0 && (got = read(fd, table->text + length, sizeof table->text - 1 - length)) > 0)
        length += (size_t)got;
    if (got < 0)
        return "/proc/self/mountinfo";
    table->text[length] = '\0';
    table->count = 0;
    for (char *line = table->text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        if (table->count == MAX_HOST_MOUNTS)
            break;
        parse_line(line, &table->mounts[table->count++]);
    }
    if (length == sizeof table->text - 1 || table->count == MAX_HOST_MOUNTS)
        return errno = E2BIG, "more mounts on this host than can be looked through";
    return NULL;
}

static bool is_kernel_type(const char *type) {
    static const char *const types[] = {
        "proc", "sysfs", "devtmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "cpuset", "debugfs", "tracefs",
        "securityfs", "configfs", "pstore", "bpf", "efivarfs", "selinuxfs", "smackfs", "fusectl", "binfmt_misc",
        "nsfs", "rpc_pipefs", "nfsd", "resctrl", "binder", "functionfs", "xenfs", "hugetlbfs",
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(type, types[i]) == 0)
            return true;
    return false;
}

/* The file system, and the directory in it, that /run is: a mount, or a part of / . */
static struct host_mount find_run(const struct table *table) {
    static char root[PATH_MAX + 8];
    struct host_mount run = {.root = "/"};
    for (size_t i = 0; i < table->count; i++) {
        const struct host_mount *mount = &table->mounts[i];
        if (strcmp(mount->point, "/run") == 0)
            return *mount;
        if (strcmp(mount->point, "/") == 0) {
            run = *mount;
            snprintf(root, sizeof root, "%s/run", strcmp(mount->root, "/") == 0 ? "" : mount->root);
            run.root = root;
        }
    }
    return run;
}

/* A mount that has another on its own root shows nothing. */
static bool is_covered(const struct table *table, const struct host_mount *mount) {
    for (size_t i = 0; i < table->count; i++)
        if (table->mounts[i].parent == mount->id && strcmp(table->mounts[i].point, mount->point) == 0)
            return true;
    return false;
}

/* A clone without it would show what it lies on. */
static bool is_cover(const struct table *table, const struct host_mount *mount) {
    for (size_t i = 0; i < table->count; i++)
        if (table->mounts[i].id == mount->parent && strcmp(table->mounts[i].point, mount->point) == 0)
            return true;
    return false;
}

static void withhold(const struct table *table, const struct host_mount *mount) {
    cleanup_fd int fd = open_beneath(AT_FDCWD, mount->point, O_PATH, RESOLVE_NO_SYMLINKS);
    struct stat st;
    char link[32];
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_dev != mount->device)
        return; /* somebody renamed a directory above it: the next pass finds it again */
    if (!is_cover(table, mount) && tree_withhold(fd))
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    umount2(link, MNT_DETACH);
}

/* `found` is how many were there. /proc itself is needed a little longer; /run goes with the
 * host's root, and its own places are refused by name (view.c). */
static const char *withhold_pass(struct table *table, size_t *found) {
    const char *wrong = read_table(table);
    if (wrong != NULL)
        return wrong;
    struct host_mount run = find_run(table);
    *found = 0;
    for (size_t i = table->count; i-- > 0;) {
        const struct host_mount *mount = &table->mounts[i];
        bool leads_out = is_kernel_type(mount->type) || (mount->device == run.device && below(mount->root, run.root));
        if (!leads_out || mount->withheld || below(mount->point, "/proc") || below(mount->point, "/run") ||
            is_covered(table, mount))
            continue;
        ++*found;
        withhold(table, mount);
    }
    return NULL;
}

static const char *withhold_all(struct table *table) {
    size_t found = 1;
    for (int passes = 0; found > 0; passes++) {
        const char *wrong = withhold_pass(table, &found);
        if (wrong != NULL)
            return wrong;
        if (found > 0 && passes == MAX_PASSES)
            return errno = EBUSY, "the host's mounts change too quickly";
    }
    return NULL;
}

static bool lies_on_withheld(const struct table *table, const struct host_mount *mount) {
    for (size_t i = 0; i < table->count; i++)
        if (table->mounts[i].id == mount->parent)
            return table->mounts[i].withheld;
    return false;
}

static size_t size_of(const char *point) {
    return (sizeof(struct top) + strlen(point) + alignof(struct top)) & ~(alignof(struct top) - 1);
}

static bool note_top(const struct host_mount *mount) {
    cleanup_fd int fd = open_beneath(AT_FDCWD, mount->point, O_PATH, RESOLVE_NO_SYMLINKS);
    struct stat st;
    size_t size = size_of(mount->point);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_dev != mount->device || size > sizeof tops - tops_used)
        return false;
    struct top *top = (struct top *)(tops + tops_used);
    *top = (struct top){.device = st.st_dev, .inode = st.st_ino};
    strcpy(top->point, mount->point);
    tops_used += size;
    return true;
}

static const char *note_tops(struct table *table) {
    const char *wrong = read_table(table);
    for (size_t i = 0; wrong == NULL && i < table->count; i++)
        if (table->mounts[i].withheld && !lies_on_withheld(table, &table->mounts[i]) && !note_top(&table->mounts[i]))
            errno = EBUSY, wrong = "the host's mounts change too quickly";
    return wrong;
}

/* What is unbindable on the host is seen as anything else is. */
static const char *make_bindable(struct table *table) {
    const char *wrong = read_table(table);
    for (size_t i = 0; wrong == NULL && i < table->count; i++)
        if (table->mounts[i].withheld && !is_covered(table, &table->mounts[i]) &&
            mount(NULL, table->mounts[i].point, NULL, MS_PRIVATE, NULL) < 0)
            wrong = "an unbindable mount";
    return wrong;
}

/* Each of `works` in turn, with a table of its own. */
static const char *with_table(const char *(*const works[])(struct table *)) {
    struct table *table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (table == MAP_FAILED)
        return "no memory to look through the mounts";
    const char *wrong = NULL;
    for (; wrong == NULL && *works != NULL; works++)
        wrong = (*works)(table);
    int kept = errno;
    munmap(table, sizeof *table);
    errno = kept;
    return wrong;
}

const char *hostmounts_withhold(void) {
    return with_table((const char *(*const[])(struct table *)){withhold_all, NULL});
}

const char *hostmounts_withhold_for_copies(void) {
    tops_used = 0;
    return with_table((const char *(*const[])(struct table *)){make_bindable, withhold_all, note_tops, NULL});
}

/* Which of the mounts it is on; 0 where that is not known. `struct statx` of an older libc
 * does not have the field. */
static uint64_t mount_id(int fd) {
    enum { WANTED = 0x1000 /* STATX_MNT_ID, since Linux 5.8 */, MASK = 0, ID = 18 /* stx_mnt_id, at 144 bytes */ };
    uint64_t answer[32] = {0};
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, WANTED, answer) < 0 || ((uint32_t)answer[MASK] & WANTED) == 0)
        return 0;
    return answer[ID];
}

/* Each must be another mount: two of one file system, a process's /proc say, look alike, and
 * somebody may exchange their places between two looks. */
static bool withhold_top(const struct top *top, uint64_t *id) {
    cleanup_fd int fd = open_beneath(AT_FDCWD, top->point, O_PATH, RESOLVE_NO_SYMLINKS);
    struct stat st;
    *id = fd < 0 ? 0 : mount_id(fd);
    return *id != 0 && fstat(fd, &st) == 0 && st.st_dev == top->device && st.st_ino == top->inode && tree_withhold(fd);
}

static bool is_among(const uint64_t *ids, size_t count, uint64_t id) {
    for (size_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

const char *hostmounts_withhold_in_copy(void) {
    uint64_t ids[1024];
    size_t count = 0;
    bool done = true;
    for (size_t at = 0; done && at < tops_used; count++) {
        const struct top *top = (const struct top *)(tops + at);
        done = count < sizeof ids / sizeof *ids && withhold_top(top, &ids[count]) && !is_among(ids, count, ids[count]);
        at += size_of(top->point);
    }
    madvise(tops, sizeof tops, MADV_DONTNEED); /* of no more use, for as long as the job runs */
    return done ? NULL : hostmounts_withhold();
}

static void hide(const char *path) {
    cleanup_fd int target = open_beneath(AT_FDCWD, path, O_PATH, RESOLVE_NO_SYMLINKS);
    struct stat st;
    if (target < 0 && (errno == ENOENT || errno == ENOTDIR))
        return;
    if (target < 0 || fstat(target, &st) < 0)
        fail("hide", path);
    cleanup_fd int cover = tree_clone(AT_FDCWD, S_ISDIR(st.st_mode) ? STUB_EMPTY : STUB_NOTHING, 0, "hide");
    tree_attach(cover, target, "hide", path);
}

void hostmounts_hide(const struct plan *plan) {
    for (size_t i = 0; i < plan->nmounts; i++)
        if (plan->mounts[i].kind == MOUNT_HIDE)
            hide(plan->mounts[i].target);
}

void hostmounts_withhold_places(const char *const places[]) {
    for (; *places != NULL; places++) {
        cleanup_fd int fd = open_beneath(AT_FDCWD, *places, O_PATH, RESOLVE_NO_SYMLINKS);
        if (fd >= 0)
            tree_withhold(fd);
    }
}
