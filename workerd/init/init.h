/* worker-init: PID 1 of a job, a further command in one, and the keeper of their cgroups.
 *
 *   main.c     which of them; the launch in order
 *   zygote.c   the first stage that stays, for one launch after another
 *   plan.c     argv -> struct plan
 *   report.c   the status pipe and the exit record: how anything is told
 *   go.c       the daemon's word that the command may run
 *   network.c  loopback, the address of a job on the bridge, its resolv.conf and hosts
 *   template.c the mount namespace that a job's is a copy of
 *   stock.c    what of a job's view is made before there is a plan
 *   view.c     what the job sees of the file system
 *   sources.c  what of that is the host's
 *   hostmounts.c  what of the host's mounts no job may see
 *   mountlist.c  the list of them, and the way to each
 *   devices.c  the job's /dev
 *   masks.c    what of /proc and /sys is covered or read-only
 *   mounts.c   thin wrappers over the mount system calls, by fd
 *   confine.c  ids, capabilities, rlimits, the exec
 *   inherited.c   what an exec does not reset
 *   seccomp.c  the system calls that a job may not make
 *   output.c   from the job's pipes into its log
 *   joblog.c   the log, its index, and how much of them is kept
 *   tty.c      the job's terminal, between its pty, the log and those who type
 *   reap.c     the life of PID 1: signals, children, the end
 *   enter.c    one more command inside a running job
 *
 * Nothing here allocates; nothing here trusts a path twice.
 */
#pragma once

#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MAX_MOUNTS 320
#define MAX_GROUPS 65536
#define MAX_FILES 4
/* Of the commands' that the first stage that stays starts: workerd/sandbox.py has them by name. */
#define USUAL_CAPABILITIES                                                                                                    \
    (1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER | 1ull << CAP_FSETID | 1ull << CAP_KILL |              \
     1ull << CAP_NET_BIND_SERVICE | 1ull << CAP_SETGID | 1ull << CAP_SETUID)
#define cleanup_fd __attribute__((cleanup(close_fd_of)))

enum mount_kind { MOUNT_RW, MOUNT_RO, MOUNT_BIND, MOUNT_BIND_RO, MOUNT_TMPFS, MOUNT_HIDE };
enum net_mode { NET_NONE, NET_BRIDGE, NET_HOST };

struct mount_op {
    enum mount_kind kind;
    const char *source; /* as the caller named it */
    const char *target; /* the same, or where he wants it; ro and rw: where that leads to, once that is known */
    uint64_t size; /* tmpfs, bytes */
    int tree;      /* a detached clone of the source, until it is attached */
    bool is_dir;
};

/* A file of the daemon's that the job sees at `target`. */
struct own_file {
    const char *source, *target;
    int tree;
};

/* What argv says; filled once by plan_parse, then read only (but for the trees, and what go_wait brings). */
struct plan {
    int cgroup_fd, status_fd, stdin_fd, go_fd;
    int log_fd, index_fd, exit_fd, control_fd; /* run, from here on: once we may go */
    int tty_fd;           /* what is typed comes here; -1 without a terminal */
    uint32_t window;      /* of the terminal: rows << 16 | columns */
    bool controlling;     /* whether the command's standard output is its controlling terminal */
    int init_fd, leash_fd, stdout_fd, stderr_fd; /* enter */
    uid_t uid;
    gid_t gid;
    gid_t *groups;
    size_t ngroups;
    uint64_t capabilities;
    mode_t umask;
    bool seccomp;
    enum net_mode net;
    uint32_t address, netmask, gateway; /* network byte order */
    struct own_file files[MAX_FILES];
    size_t nfiles;
    const char *hostname;
    const char *rootfs;
    const char *cwd;
    bool cwd_read_only;
    uint64_t tmp_size;
    uint64_t max_output;
    struct mount_op *mounts;
    size_t nmounts;
    char **argv;
};

/* plan.c: NULL, or what is wrong in words (static storage). */
const char *plan_parse(int argc, char **argv, struct plan *plan);
const char *plan_check_run(const struct plan *plan);
const char *plan_check_enter(const struct plan *plan);

/* main.c */
void block_signals(void);
pid_t spawn_command(const struct plan *plan, const int streams[2]);
void wipe_arguments(char **argv);
bool protect_from_oom(void);
pid_t clone_init(const struct plan *plan, uint64_t fresh); /* CLONE_NEW… beyond PID and mount; -1 and errno */
_Noreturn void be_init(struct plan *plan, char **arguments);

/* zygote.c: the exit code; `word` is what called for it, in argv */
int zygote(char *word);
void zygote_command_runs(void); /* in PID 1 */
void zygote_release(void); /* in PID 1, once its plan is carried out */

/* report.c. A step is one word; the daemon makes a sentence of step, errno and detail. */
struct exit_times {
    uint64_t started_ns, finished_ns, duration_ns;
};
void report_init(const struct plan *plan);
void report_ends_to(int fd);
void report_from_command(void);
void report_pid(pid_t pid);
void report_starting(void);
void report_running(void);
bool report_command_failed(void);
_Noreturn void fail(const char *step, const char *detail);
_Noreturn void fail_errno(const char *step, int err, const char *detail);
_Noreturn void report_start_failure(void);
void report_refusal(const char *step, int err, const char *detail); /* as fail_errno, and goes on */
void report_over(void);
void report_exit(int code, int status, const struct exit_times *times, uint64_t output_end, uint64_t lost);
void close_fd_of(int *fd); /* and it is -1 then */
uint64_t clock_ns(clockid_t clock);

/* mounts.c: those with a step fail() with it. The attributes are of linux/mount.h, the walk of linux/openat2.h. */
#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define SEALED (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
#define WALK (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
int tree_copy(int dirfd, const char *path, unsigned int flags); /* -1 and errno */
int tree_clone(int dirfd, const char *path, unsigned int flags, const char *step);
void tree_set(int fd, uint64_t set, uint64_t clear, bool recursive, const char *step, const char *detail);
bool tree_withhold(int fd);
bool tree_seal(int fd);
bool tree_move(int tree, int target);
void tree_attach(int tree, int target, const char *step, const char *detail);
int fs_new(const char *type, const char *const options[][2], uint64_t attributes, const char *step);
int fs_make(const char *type, const char *const options[][2], uint64_t attributes, const char **what); /* -1 and errno, does not fail() */
int fd_keep(int fd); /* the same one, or -1, where no plan's descriptor comes to lie; -1 and errno */
int open_beneath(int root, const char *path, uint64_t flags, uint64_t resolve);

/* mountlist.c */
#define MAX_HOST_MOUNTS 20000
struct host_mount { /* a line of proc_pid_mountinfo(5) */
    unsigned long id, parent;
    dev_t device;
    const char *root, *point, *type;
    bool withheld;  /* unbindable by now */
    bool leads_out; /* to be withheld */
};

struct mount_list { /* large: in memory of its own, given back before the job runs */
    size_t count;
    struct host_mount mounts[MAX_HOST_MOUNTS];
    char text[4 << 20];
};

bool below(const char *path, const char *top); /* or the same */
const char *mountlist_read(struct mount_list *list); /* NULL, or what is wrong, and errno */
struct host_mount *mountlist_ground(struct mount_list *list, const struct host_mount *mount);
const char *mountlist_hidden_by(struct mount_list *list, const struct host_mount *mount);
int mountlist_open(struct mount_list *list, const struct host_mount *mount); /* its root, by its path; or -1 */
int mountlist_open_place(const char *path);
int mountlist_open_above(const char *path, const char **name); /* the directory that it is a name in */
struct host_mount *mountlist_top(struct mount_list *list, const char *place, int fd); /* NULL: `fd` is of none there */
uint64_t mount_id(int fd);

/* hostmounts.c */
const char *hostmounts_withhold(void); /* NULL, or what could not be done, and errno */
bool hostmounts_note_withheld(void); /* where those are, for what has them no more; false where that is too much */
bool hostmounts_are_withheld(const char *path); /* whether one was there as they were noted last */
const char *hostmounts_hide(const struct plan *plan); /* NULL, or what cannot be hidden, and errno */
const char *hostmounts_withhold_places(const char *const places[]); /* the same; those that are mounts */
bool hostmounts_withhold_proc(void); /* all that is at /proc, once no path is looked up any more; false and errno */
bool hostmounts_unmount_all(const char *place); /* false and errno */

/* template.c. False where we cannot be in the host's mount namespace again, or in our network namespace. */
#define KEPT_FD 20 /* what the first stage keeps lies from here on */
#define STUB_HOST "host" /* by these names, from the working directory that PID 1 begins with */
#define STUB_EMPTY "empty"
#define STUB_NOTHING "nothing"
#define STUB_SYS "sys"
void template_open(void);
void template_do_without(void); /* instead, where the next one that is cloned has a copy of the host's mounts itself */
bool template_make(void);
bool template_leave(void);
bool template_renew(void); /* for a plan: what is cloned next is a copy of the host's mounts as they are now */
void template_forget_plan(void);
bool template_is_made(void); /* in PID 1: whether it has a copy of it */
int template_changes(void); /* -1, or to be polled for what calls for template_leave */
void template_take(void); /* in PID 1, first of all */
void template_take_host(void); /* what the host has now, in place of what we had; after a few calls it is never stale */
int template_proc(void); /* the host's /proc, which a copy of the template has not */
bool template_was_stale(void); /* whether what was taken since is to be taken again, from the host */
bool template_unmount_host(void); /* false and errno */
void template_release(void); /* in PID 1, once all is taken */

/* sharedsys.c. All as far as it can be had, but for the way back. */
void sharedsys_open(void);  /* leaves our network namespace */
bool sharedsys_place(void); /* on the stub; false where we cannot be in our network namespace again */
int sharedsys_take(const struct plan *plan); /* in PID 1, on the stub: that one, or the job's own */

/* stock.c */
enum stock_item { STOCK_DEVICES, STOCK_TERMINALS, STOCK_QUEUES, STOCK_RUN, STOCK_TMP, STOCK_VAR_TMP, STOCK_SHM };
void stock_fill(void);  /* as much of it as can be had */
void stock_clear(void); /* once they are another's, or of namespaces that we have left */
void stock_fit(const struct plan *plan); /* what is not as this one wants it is dropped */
int stock_take(enum stock_item item, const char *step); /* in PID 1, whose it is */
int tmpfs_make(uint64_t size, uint64_t attributes, const char **what); /* as /tmp, detached; -1 and errno */

/* sources.c */
extern const char *const sources_replaced[]; /* places of which the view has its own, and not the host's */
struct sources {
    int root;            /* of the view */
    bool root_is_clone;  /* and detached, so that the host's tree is still there */
    struct mount_op cwd; /* its tree is -1 where the directory is shown as the rest is */
};
void sources_collect(struct plan *plan, struct sources *sources); /* the trees of the plan's mounts, too */
void sources_release(void); /* once all is in place */

/* view.c */
void view_build(struct plan *plan, const struct sources *sources);
int view_open(const char *path); /* O_PATH, in the new root, no links followed; -1 and errno */
void view_attach(int tree, const char *path, const char *step);
void view_tmpfs(enum stock_item item, const char *path);

/* devices.c */
int devices_make(const char **what); /* a /dev, detached; -1 and errno */
void devices_build(void);

/* masks.c */
void masks_apply_to_proc(int proc, int empty_fd);
bool masks_apply_to_sys(int sys, int empty_fd); /* false and errno where something is left uncovered */

/* go.c */
void go_announce(const struct plan *plan);
void go_wait(struct plan *plan); /* returns once the command may run */

/* network.c */
bool network_loopback_up(void);
void network_configure(const struct plan *plan);
void network_collect_files(struct plan *plan);
void network_place_files(struct plan *plan);

/* confine.c */
void as_caller(const struct plan *plan);
void as_root(void);
void join_keyring(void);
void bound_for_all(void);
void bound_for_both(const struct plan *plan);
void drop_to_reaper(void);
_Noreturn void exec_command(const struct plan *plan, int out, int err);

/* inherited.c */
void reset_inherited(void);

/* seccomp.c */
void seccomp_build(void); /* once; of no effect before `seccomp_install` */
void seccomp_install(void);

/* joblog.c */
struct __attribute__((packed)) log_record {
    uint64_t offset, length, time;
    uint32_t stream, reserved;
};
struct joblog {
    int fd, index_fd;
    uint64_t cap;
    uint64_t end, kept_from, lost; /* offsets; bytes that could not be stored */
    uint64_t records, first_record;
    uint64_t punched, index_punched; /* bytes that take no space any more */
    uint64_t more; /* the index's flag of that name */
    int64_t clock_ahead;
    struct log_record last;
    bool fixed; /* holes cannot be punched here */
};
void log_open(struct joblog *log, int log_fd, int index_fd, uint64_t cap);
bool log_room(struct joblog *log);                                         /* whether more may be stored */
bool log_append(struct joblog *log, uint32_t stream, uint64_t length);     /* what is already at the log's end */
void log_lose(struct joblog *log, uint64_t length);
void log_close(struct joblog *log);

/* output.c */
struct output {
    int pipes[2]; /* read ends: stdout, stderr; -1 when at their end */
    bool grown[2];
    struct joblog log;
};
void output_open(struct output *out, const struct plan *plan, int write_ends[2]);
bool output_move(struct output *out, int which);
void output_finish(struct output *out);

/* tty.c: nothing happens without a terminal */
void tty_open(const struct plan *plan, int streams[2]);
void tty_resize(uint32_t window);
void tty_poll(struct pollfd fds[2]);
void tty_serve(const struct pollfd fds[2], struct output *out);
void tty_finish(struct output *out);

/* reap.c: orders come as 8-byte messages */
enum order_kind { ORDER_SIGNAL = 1, ORDER_SIGNAL_ALL = 2, ORDER_WINDOW = 3 };

struct order {
    uint8_t kind, signal;
    uint16_t reserved;
    uint32_t argument; /* window: rows << 16 | columns */
};
_Static_assert(sizeof(struct order) == 8, "the layout is a contract");

int open_signals(void);
_Noreturn void reap_forever(const struct plan *plan, struct output *out, int signals, pid_t command);

/* enter.c: the exit code of the first stage */
int enter(int argc, char **argv);
