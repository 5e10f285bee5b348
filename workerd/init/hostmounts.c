/* What of the host's mounts no job may see, wherever on the host it is mounted: kernel file
 * systems (a chroot's own /proc would show /proc/PID/root of the caller's other processes),
 * second places of /run with its sockets, and what the daemon hides.
 *
 * All of it is done in a copy of the host's mounts (template.c), before anything is cloned
 * from there: so it holds for every tree that the view is made of. A mount is withheld by
 * making it unbindable (mount_namespaces(7)): no clone contains it, or can be taken from
 * it. (A copy of the namespace may have forgotten that; 6.18 has.) Unmounting would do
 * as well, but each umount2 waits for a grace period of RCU, some 0.1 ms, and a host has dozens
 * of such mounts. What comes into being without a mount, the places that the daemon hides, is
 * looked for in PID 1, for each job.
 *
 * Another mount may lie over such a one, or over the way to it: a user's FUSE, say. That no path
 * leads to it then is not enough. Who may rename a directory between the two, and has it open or
 * the file system elsewhere, takes it out from beneath the other at any time, in a running job's
 * copy too, and no list of mounts changes by that. So it is unmounted in our copy, while what lies
 * over it is set aside; what cannot be reached so either is told, and no job starts. Nothing is
 * looked up in what lies over it: a FUSE's server may never answer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"

#define MAX_PASSES 64

static char withheld[64 << 10]; /* places, each with its NUL */
static size_t withheld_used;
static size_t procs; /* at /proc, one upon the other, as the mounts were looked through last */

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
static struct host_mount find_run(const struct mount_list *list) {
    static char root[PATH_MAX + 8];
    struct host_mount run = {.root = "/"};
    for (size_t i = 0; i < list->count; i++) {
        const struct host_mount *mount = &list->mounts[i];
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

/* /proc itself is needed a little longer. A /run that is a mount goes with all that is on it, and
 * its own places are refused by name (sources.c); on one that is not, as elsewhere, a directory
 * may be renamed: out of it. */
static void find_ways_out(struct mount_list *list) {
    struct host_mount run = find_run(list);
    bool is_mount = run.point != NULL && strcmp(run.point, "/run") == 0;
    procs = 0;
    for (size_t i = 0; i < list->count; i++) {
        struct host_mount *mount = &list->mounts[i];
        procs += strcmp(mount->point, "/proc") == 0;
        bool leads_out = is_kernel_type(mount->type) || (mount->device == run.device && below(mount->root, run.root));
        mount->leads_out = leads_out && !below(mount->point, "/proc") && !(is_mount && below(mount->point, "/run"));
    }
}

static bool lies_on_withheld(struct mount_list *list, const struct host_mount *mount) {
    const struct host_mount *ground = mountlist_ground(list, mount);
    return ground != NULL && ground->withheld;
}

/* With it goes all that lies on it. */
static struct host_mount *outermost_way_out(struct mount_list *list, struct host_mount *mount) {
    struct host_mount *found = mount;
    for (size_t levels = 0; mount != NULL && levels < list->count; levels++, mount = mountlist_ground(list, mount))
        if (mount->leads_out)
            found = mount;
    return found;
}

static bool unmount(int fd) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return umount2(link, MNT_DETACH) == 0;
}

/* To the stub, where all else is empty. */
static bool set_aside(int fd) {
    cleanup_fd int directory = open(STUB_EMPTY, O_PATH | O_CLOEXEC), file = open(STUB_NOTHING, O_PATH | O_CLOEXEC);
    return tree_move(fd, directory) || tree_move(fd, file);
}

static bool put_back(int fd, int above, const char *name, unsigned long ground) {
    cleanup_fd int target = open_beneath(above, name, O_PATH, RESOLVE_NO_SYMLINKS);
    return target >= 0 && mount_id(target) == ground && tree_move(fd, target);
}

/* With all that is still in the way to it. `ground` is what the one that was set aside lay on. */
static void unmount_hidden(struct mount_list *list, struct host_mount *mount, unsigned long *ground) {
    for (const char *place = ""; place != NULL;) {
        place = mountlist_hidden_by(list, mount);
        cleanup_fd int fd = mountlist_open_place(place != NULL ? place : mount->point);
        struct host_mount *top = mountlist_top(list, place != NULL ? place : mount->point, fd);
        if (top == NULL || (place == NULL && top != mount) || !unmount(fd))
            return;
        if (top->id == *ground)
            *ground = top->parent;
        top->parent = 0; /* it lies on nothing any more */
    }
}

/* NULL, or what could not be put back, and errno: this copy is of no use then. The directory in
 * which it lay stays the same one, whatever is renamed meanwhile. */
static const char *take_away(struct mount_list *list, struct host_mount *mount, const char *place) {
    const char *name;
    cleanup_fd int above = mountlist_open_above(place, &name);
    cleanup_fd int fd = above < 0 ? -1 : open_beneath(above, name, O_PATH, RESOLVE_NO_SYMLINKS);
    struct host_mount *cover = mountlist_top(list, place, fd);
    if (cover == NULL || !set_aside(fd))
        return NULL;
    unsigned long ground = cover->parent;
    cover->parent = 0;
    unmount_hidden(list, mount, &ground);
    if (!put_back(fd, above, name, ground))
        return errno = EBUSY, place;
    cover->parent = ground;
    return NULL;
}

/* Where somebody renamed a directory above it, the next pass finds it again. */
static const char *withhold(struct mount_list *list, struct host_mount *mount) {
    const char *place = mountlist_hidden_by(list, mount);
    if (place != NULL)
        return take_away(list, mount, place);
    cleanup_fd int fd = mountlist_open(list, mount);
    if (fd >= 0)
        tree_withhold(fd);
    return NULL;
}

static bool is_settled(struct mount_list *list, const struct host_mount *mount) {
    return !mount->leads_out || (mount->withheld && (lies_on_withheld(list, mount) || mountlist_hidden_by(list, mount) == NULL));
}

/* `found` is the place of one that was there, or NULL. */
static const char *withhold_pass(struct mount_list *list, const char **found) {
    const char *wrong = mountlist_read(list);
    *found = NULL;
    if (wrong != NULL)
        return wrong;
    find_ways_out(list);
    for (size_t i = list->count; wrong == NULL && i-- > 0;) {
        struct host_mount *mount = &list->mounts[i];
        if (is_settled(list, mount))
            continue;
        *found = mount->point;
        wrong = withhold(list, outermost_way_out(list, mount));
    }
    return wrong;
}

static const char *withhold_all(struct mount_list *list) {
    const char *wrong = NULL, *found = "";
    for (int passes = 0; wrong == NULL && found != NULL; passes++) {
        wrong = withhold_pass(list, &found);
        if (wrong == NULL && found != NULL && passes == MAX_PASSES)
            errno = EBUSY, wrong = found;
    }
    return wrong;
}

static const char *note_places(struct mount_list *list) {
    const char *wrong = mountlist_read(list);
    withheld_used = 0;
    for (size_t i = 0; wrong == NULL && i < list->count; i++) {
        const struct host_mount *mount = &list->mounts[i];
        size_t size = strlen(mount->point) + 1;
        if (!mount->withheld || lies_on_withheld(list, mount))
            continue;
        if (size > sizeof withheld - withheld_used)
            return errno = E2BIG, "more mounts to withhold than can be remembered";
        memcpy(withheld + withheld_used, mount->point, size);
        withheld_used += size;
    }
    return wrong;
}

bool hostmounts_are_withheld(const char *path) {
    for (const char *place = withheld; place < withheld + withheld_used; place += strlen(place) + 1)
        if (below(path, place))
            return true;
    return false;
}

/* What is unbindable on the host is seen as anything else is. */
static const char *make_bindable(struct mount_list *list) {
    const char *wrong = mountlist_read(list);
    for (size_t i = 0; wrong == NULL && i < list->count; i++)
        if (list->mounts[i].withheld && mountlist_hidden_by(list, &list->mounts[i]) == NULL &&
            mount(NULL, list->mounts[i].point, NULL, MS_PRIVATE, NULL) < 0)
            wrong = "an unbindable mount";
    return wrong;
}

/* Each of `works` in turn, with a list of its own; what is wrong is told in static storage. */
static const char *with_list(const char *(*const works[])(struct mount_list *)) {
    struct mount_list *list = mmap(NULL, sizeof *list, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (list == MAP_FAILED)
        return "no memory to look through the mounts";
    static char told[256];
    const char *wrong = NULL;
    for (; wrong == NULL && *works != NULL; works++)
        wrong = (*works)(list);
    int kept = errno;
    snprintf(told, sizeof told, "%s", wrong != NULL ? wrong : "");
    munmap(list, sizeof *list);
    errno = kept;
    return wrong != NULL ? told : NULL;
}

const char *hostmounts_withhold(void) {
    return with_list((const char *(*const[])(struct mount_list *)){make_bindable, withhold_all, NULL});
}

bool hostmounts_note_withheld(void) {
    return with_list((const char *(*const[])(struct mount_list *)){note_places, NULL}) == NULL;
}

static bool hide(const char *path) {
    cleanup_fd int target = open_beneath(AT_FDCWD, path, O_PATH, RESOLVE_NO_SYMLINKS);
    struct stat st;
    if (target < 0)
        return errno == ENOENT || errno == ENOTDIR;
    if (fstat(target, &st) < 0)
        return false;
    cleanup_fd int cover = tree_copy(AT_FDCWD, S_ISDIR(st.st_mode) ? STUB_EMPTY : STUB_NOTHING, 0);
    return cover >= 0 && tree_move(cover, target);
}

const char *hostmounts_hide(const struct plan *plan) {
    for (size_t i = 0; i < plan->nmounts; i++)
        if (plan->mounts[i].kind == MOUNT_HIDE && !hide(plan->mounts[i].target))
            return plan->mounts[i].target;
    return NULL;
}

static bool withhold_place(const char *path) {
    cleanup_fd int fd = open_beneath(AT_FDCWD, path, O_PATH, RESOLVE_NO_SYMLINKS);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
    return tree_withhold(fd) || errno == EINVAL; /* no mount */
}

const char *hostmounts_withhold_places(const char *const places[]) {
    for (; *places != NULL; places++)
        if (!withhold_place(*places))
            return *places;
    return NULL;
}

bool hostmounts_withhold_proc(void) {
    if (procs > 1) /* the place leads to the uppermost alone */
        return hostmounts_unmount_all("/proc");
    return withhold_place("/proc");
}

bool hostmounts_unmount_all(const char *place) {
    while (umount2(place, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        ;
    return errno == EINVAL || errno == ENOENT || errno == ENOTDIR;
}
