/* What of the host's mounts no job may see, wherever on the host it is mounted: kernel file
 * systems (a chroot's own /proc would show /proc/PID/root of the caller's other processes),
 * second places of /run with its sockets, and what the daemon hides.
 *
 * All of it is done in PID 1's own copy of the host's mounts, before anything is cloned
 * from there: so it holds for every tree that the view is made of. A mount is withheld by
 * making it unbindable (mount_namespaces(7)): no clone contains it, or can be taken from
 * it. Unmounting would do as well, but each umount2 waits for a grace period of RCU, some
 * 0.1 ms, and a host has dozens of such mounts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
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

struct table { /* in memory of its own, given back before the job runs */
    size_t count;
    struct host_mount mounts[MAX_HOST_MOUNTS];
    char text[4 << 20];
};

static int empty = -1; /* a detached tree: for what of directories is hidden or masked */

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

static void read_table(struct table *table) {
    cleanup_fd int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t got = -1;
    while (fd >= 0 && (got = read(fd, table->text + length, sizeof table->text - 1 - length)) > 0)
        length += (size_t)got;
    if (got < 0)
        fail("hide", "/proc/self/mountinfo");
    table->text[length] = '\0';
    table->count = 0;
    for (char *line = table->text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        if (table->count == MAX_HOST_MOUNTS)
            break;
        parse_line(line, &table->mounts[table->count++]);
    }
    if (length == sizeof table->text - 1 || table->count == MAX_HOST_MOUNTS)
        fail_errno("hide", E2BIG, "more mounts on this host than can be looked through");
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

/* How many were there. /proc itself is needed a little longer; /run goes with the host's
 * root, and its own places are refused by name (view.c). */
static size_t withhold_pass(struct table *table) {
    size_t found = 0;
    read_table(table);
    struct host_mount run = find_run(table);
    for (size_t i = table->count; i-- > 0;) {
        const struct host_mount *mount = &table->mounts[i];
        bool leads_out = is_kernel_type(mount->type) || (mount->device == run.device && below(mount->root, run.root));
        if (!leads_out || mount->withheld || below(mount->point, "/proc") || below(mount->point, "/run") ||
            is_covered(table, mount))
            continue;
        found++;
        withhold(table, mount);
    }
    return found;
}

static int null_of_host(void) {
    struct stat st;
    int tree = tree_clone(AT_FDCWD, "/dev/null", 0, "hide");
    if (fstat(tree, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
        fail_errno("hide", ENODEV, "/dev/null");
    return tree;
}

static int empty_tree(void) {
    const char *const options[][2] = {{"mode", "555"}, {"nr_inodes", "2"}, {NULL, NULL}};
    const uint64_t sealed = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    return fs_new("tmpfs", options, sealed, "hide");
}

/* Only what is attached can be cloned: a place takes the tree itself, and a clone of it is
 * for the next one. */
static void cover(int target, int *tree, const char *path) {
    cleanup_fd int attached = *tree;
    tree_attach(attached, target, "hide", path);
    *tree = tree_clone(attached, "", AT_EMPTY_PATH, "hide");
}

static void hide(const char *path, int *null_tree) {
    cleanup_fd int target = open_beneath(AT_FDCWD, path, O_PATH, RESOLVE_NO_SYMLINKS);
    struct stat st;
    if (target < 0 && (errno == ENOENT || errno == ENOTDIR))
        return;
    if (target < 0 || fstat(target, &st) < 0)
        fail("hide", path);
    cover(target, S_ISDIR(st.st_mode) ? &empty : null_tree, path);
}

/* To close a detached clone waits for the kernel (synchronize_rcu): none is made in vain. */
static bool hides_files(const struct plan *plan) {
    struct stat st;
    for (size_t i = 0; i < plan->nmounts; i++)
        if (plan->mounts[i].kind == MOUNT_HIDE && stat(plan->mounts[i].target, &st) == 0 && !S_ISDIR(st.st_mode))
            return true;
    return false;
}

int hostmounts_empty(void) {
    int tree = empty;
    empty = -1;
    return tree;
}

void hostmounts_prepare(const struct plan *plan) {
    struct table *table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (table == MAP_FAILED)
        fail("hide", "no memory to look through the mounts");
    cleanup_fd int null_tree = hides_files(plan) ? null_of_host() : -1;
    empty = empty_tree();
    for (int passes = 0; withhold_pass(table) > 0; passes++)
        if (passes == MAX_PASSES)
            fail_errno("hide", EBUSY, "the host's mounts change too quickly");
    munmap(table, sizeof *table);
    for (size_t i = 0; i < plan->nmounts; i++)
        if (plan->mounts[i].kind == MOUNT_HIDE)
            hide(plan->mounts[i].target, &null_tree);
}

void hostmounts_withhold(const char *const places[]) {
    for (; *places != NULL; places++) {
        cleanup_fd int fd = open_beneath(AT_FDCWD, *places, O_PATH, RESOLVE_NO_SYMLINKS);
        if (fd >= 0)
            tree_withhold(fd);
    }
}
