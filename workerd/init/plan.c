/* argv -> struct plan. Everything on the command line is checked here and nowhere else. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "init.h"

static gid_t group_ids[MAX_GROUPS];

static bool parse_u64(const char *text, uint64_t max, int base, uint64_t *value) {
    char *end;
    if (*text < '0' || *text > '9')
        if (base != 16 || strchr("abcdef", *text) == NULL || *text == '\0')
            return false;
    errno = 0;
    *value = strtoull(text, &end, base);
    return errno == 0 && *end == '\0' && *value <= max;
}

static bool parse_fd(const char *text, int *fd) {
    uint64_t value;
    if (!parse_u64(text, INT_MAX, 10, &value) || value < 3)
        return false;
    *fd = (int)value;
    return true;
}

static bool parse_groups(const char *text, struct plan *plan) {
    char number[16];
    plan->groups = group_ids;
    plan->ngroups = 0;
    while (*text != '\0') {
        size_t length = strcspn(text, ",");
        uint64_t value;
        if (length == 0 || length >= sizeof number || plan->ngroups == MAX_GROUPS)
            return false;
        memcpy(number, text, length);
        number[length] = '\0';
        if (!parse_u64(number, UINT32_MAX - 1, 10, &value))
            return false;
        plan->groups[plan->ngroups++] = (gid_t)value;
        text += length;
        if (*text == ',' && *++text == '\0')
            return false;
    }
    return true;
}

/* Absolute, and with no component that could lead elsewhere. */
static bool clean_path(const char *path) {
    if (path[0] != '/' || strlen(path) >= PATH_MAX)
        return false;
    while (*path != '\0') {
        path += strspn(path, "/");
        size_t length = strcspn(path, "/");
        if ((length == 1 && path[0] == '.') || (length == 2 && path[0] == '.' && path[1] == '.'))
            return false;
        path += length;
    }
    return true;
}

static bool parse_mount(struct plan *plan, enum mount_kind kind, char **values) {
    if (plan->nmounts == MAX_MOUNTS)
        return false;
    struct mount_op *op = &plan->mounts[plan->nmounts];
    *op = (struct mount_op){.kind = kind, .tree = -1, .is_dir = kind == MOUNT_TMPFS};
    bool bind = kind == MOUNT_BIND || kind == MOUNT_BIND_RO;
    op->source = values[0];
    op->target = bind ? values[1] : values[0];
    if (kind == MOUNT_TMPFS && !parse_u64(values[1], INT64_MAX, 10, &op->size))
        return false;
    if (!clean_path(op->target) || op->target[strspn(op->target, "/")] == '\0')
        return false;
    if (bind && op->source[0] != '/')
        return false;
    plan->nmounts++;
    return true;
}

static bool parse_net(const char *text, struct plan *plan) {
    static const char *const names[] = {[NET_NONE] = "none", [NET_BRIDGE] = "bridge", [NET_HOST] = "host"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0) {
            plan->net = (enum net_mode)i;
            return true;
        }
    return false;
}

/* A.B.C.D/N */
static bool parse_address(const char *text, struct plan *plan) {
    char dotted[INET_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    uint64_t bits;
    if (slash == NULL || (size_t)(slash - text) >= sizeof dotted || !parse_u64(slash + 1, 30, 10, &bits) || bits < 8)
        return false;
    memcpy(dotted, text, (size_t)(slash - text));
    dotted[slash - text] = '\0';
    plan->netmask = htonl(~0u << (32 - bits));
    return inet_pton(AF_INET, dotted, &plan->address) == 1;
}

static bool parse_file(char **values, struct plan *plan) {
    if (plan->nfiles == MAX_FILES || values[0][0] != '/' || !clean_path(values[1]))
        return false;
    plan->files[plan->nfiles++] = (struct own_file){values[0], values[1], -1};
    return true;
}

static bool parse_window(char **values, struct plan *plan) {
    uint64_t rows, columns;
    if (!parse_u64(values[0], UINT16_MAX, 10, &rows) || !parse_u64(values[1], UINT16_MAX, 10, &columns))
        return false;
    plan->window = (uint32_t)(rows << 16 | columns);
    return true;
}

enum option {
    CGROUP_FD, STATUS_FD, STDIN_FD, GO_FD,
    UID, GID, GROUPS, CAPS, UMASK, NO_SECCOMP, NET, HOSTNAME, ROOTFS, CWD, CWD_RO,
    TMP_SIZE, MAX_OUTPUT, RW, RO, BIND, BIND_RO, TMPFS, HIDE,
    ADDRESS, GATEWAY, OWN_FILE,
    WINDOW, INIT_FD, LEASH_FD, STDOUT_FD, STDERR_FD, CONTROLLING,
};

static const struct {
    const char *name;
    int values;
} OPTIONS[] = {
    [CGROUP_FD] = {"--cgroup-fd", 1}, [STATUS_FD] = {"--status-fd", 1},   [STDIN_FD] = {"--stdin-fd", 1},
    [GO_FD] = {"--go-fd", 1},         [UID] = {"--uid", 1},
    [GID] = {"--gid", 1},             [GROUPS] = {"--groups", 1},         [CAPS] = {"--capabilities", 1},
    [UMASK] = {"--umask", 1},         [NO_SECCOMP] = {"--no-seccomp", 0}, [NET] = {"--net", 1},
    [HOSTNAME] = {"--hostname", 1},   [ROOTFS] = {"--rootfs", 1},         [CWD] = {"--cwd", 1},
    [CWD_RO] = {"--cwd-read-only", 0}, [TMP_SIZE] = {"--tmp-size", 1},    [MAX_OUTPUT] = {"--max-output", 1},
    [RW] = {"--rw", 1},               [RO] = {"--ro", 1},                 [BIND] = {"--bind", 2},
    [BIND_RO] = {"--bind-ro", 2},     [TMPFS] = {"--tmpfs", 2},           [HIDE] = {"--hide", 1},
    [ADDRESS] = {"--address", 1},     [GATEWAY] = {"--gateway", 1},       [OWN_FILE] = {"--own-file", 2},
    [WINDOW] = {"--window", 2},       [INIT_FD] = {"--init-fd", 1},
    [LEASH_FD] = {"--leash-fd", 1},   [STDOUT_FD] = {"--stdout-fd", 1},   [STDERR_FD] = {"--stderr-fd", 1},
    [CONTROLLING] = {"--controlling", 0},
};

static bool set_fd(struct plan *plan, enum option option, const char *value) {
    int *const slots[] = {
        [CGROUP_FD] = &plan->cgroup_fd, [STATUS_FD] = &plan->status_fd,   [STDIN_FD] = &plan->stdin_fd,
        [GO_FD] = &plan->go_fd,         [INIT_FD] = &plan->init_fd,       [LEASH_FD] = &plan->leash_fd,
        [STDOUT_FD] = &plan->stdout_fd, [STDERR_FD] = &plan->stderr_fd,
    };
    return parse_fd(value, slots[option]);
}

static bool set_number(struct plan *plan, enum option option, const char *value) {
    uint64_t number;
    uint64_t max = option == UID || option == GID ? UINT32_MAX - 1 : option == UMASK ? 0777 : INT64_MAX;
    int base = option == CAPS ? 16 : option == UMASK ? 8 : 10;
    if (!parse_u64(value, max, base, &number))
        return false;
    switch (option) {
    case UID: plan->uid = (uid_t)number; break;
    case GID: plan->gid = (gid_t)number; break;
    case CAPS: plan->capabilities = number; break;
    case UMASK: plan->umask = (mode_t)number; break;
    case TMP_SIZE: plan->tmp_size = number; break;
    default: plan->max_output = number; break;
    }
    return true;
}

static bool set_option(struct plan *plan, enum option option, char **values) {
    switch (option) {
    case CGROUP_FD: case STATUS_FD: case STDIN_FD: case GO_FD: case INIT_FD: case LEASH_FD: case STDOUT_FD: case STDERR_FD:
        return set_fd(plan, option, values[0]);
    case UID: case GID: case CAPS: case UMASK: case TMP_SIZE: case MAX_OUTPUT:
        return set_number(plan, option, values[0]);
    case GROUPS: return parse_groups(values[0], plan);
    case NO_SECCOMP: plan->seccomp = false; return true;
    case NET: return parse_net(values[0], plan);
    case HOSTNAME: plan->hostname = values[0]; return strlen(values[0]) <= 64;
    case ROOTFS: plan->rootfs = values[0]; return values[0][0] == '/' && strlen(values[0]) < PATH_MAX;
    case CWD: plan->cwd = values[0]; return values[0][0] == '/' && strlen(values[0]) < PATH_MAX;
    case CWD_RO: plan->cwd_read_only = true; return true;
    case RW: return parse_mount(plan, MOUNT_RW, values);
    case RO: return parse_mount(plan, MOUNT_RO, values);
    case BIND: return parse_mount(plan, MOUNT_BIND, values);
    case BIND_RO: return parse_mount(plan, MOUNT_BIND_RO, values);
    case TMPFS: return parse_mount(plan, MOUNT_TMPFS, values);
    case HIDE: return parse_mount(plan, MOUNT_HIDE, values);
    case ADDRESS: return parse_address(values[0], plan);
    case GATEWAY: return inet_pton(AF_INET, values[0], &plan->gateway) == 1;
    case OWN_FILE: return parse_file(values, plan);
    case WINDOW: return parse_window(values, plan);
    case CONTROLLING: plan->controlling = true; return true;
    }
    return false;
}

static const char *check_who(const struct plan *plan) {
    if (plan->uid == (uid_t)-1 || plan->gid == (gid_t)-1)
        return "--uid and --gid are needed";
    if (plan->uid != 0 && plan->capabilities != 0)
        return "--capabilities are root's alone";
    return NULL;
}

const char *plan_check_run(const struct plan *plan) {
    if (plan->status_fd < 0 || plan->go_fd < 0)
        return "--status-fd and --go-fd are needed";
    if (plan->net == NET_BRIDGE && (plan->address == 0 || plan->gateway == 0))
        return "--net bridge needs --address and --gateway";
    return check_who(plan);
}

const char *plan_check_enter(const struct plan *plan) {
    if (plan->cgroup_fd < 0 || plan->init_fd < 0 || plan->leash_fd < 0 || plan->status_fd < 0)
        return "--cgroup-fd, --init-fd, --leash-fd and --status-fd are needed";
    if (plan->stdout_fd < 0 || plan->stderr_fd < 0 || plan->stdout_fd == plan->stderr_fd)
        return "--stdout-fd and --stderr-fd are needed, and apart";
    return check_who(plan);
}

const char *plan_parse(int argc, char **argv, struct plan *plan) {
    static struct mount_op mounts[MAX_MOUNTS]; /* apart, for most of it is never touched */
    *plan = (struct plan){
        .mounts = mounts,
        .cgroup_fd = -1, .log_fd = -1, .index_fd = -1, .exit_fd = -1, .status_fd = -1, .control_fd = -1,
        .stdin_fd = -1, .go_fd = -1, .tty_fd = -1, .window = 24 << 16 | 80, .init_fd = -1, .leash_fd = -1,
        .stdout_fd = -1, .stderr_fd = -1, .uid = (uid_t)-1, .gid = (gid_t)-1, .umask = 022, .seccomp = true,
        .hostname = "job", .cwd = "/", .tmp_size = 1 << 30, .max_output = 64 << 20,
    };
    static char message[128];
    const size_t count = sizeof OPTIONS / sizeof *OPTIONS;
    int at = 0;
    while (at < argc && strcmp(argv[at], "--") != 0) {
        size_t option = 0;
        while (option < count && strcmp(argv[at], OPTIONS[option].name) != 0)
            option++;
        const char *wrong = option == count ? "unknown option" : NULL;
        if (wrong == NULL && argc - at <= OPTIONS[option].values)
            wrong = "no value for";
        else if (wrong == NULL && !set_option(plan, (enum option)option, argv + at + 1))
            wrong = "bad value for";
        if (wrong != NULL) {
            size_t length = strlen(wrong);
            memcpy(message, wrong, length);
            message[length] = ' ';
            strncpy(message + length + 1, argv[at], sizeof message - length - 2);
            return message;
        }
        at += 1 + OPTIONS[option].values;
    }
    if (at + 1 >= argc)
        return "no command after --";
    plan->argv = argv + at + 1;
    return NULL;
}
