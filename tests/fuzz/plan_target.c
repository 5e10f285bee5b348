/* libFuzzer target: worker-init's argument parser (workerd/init/plan.c).
 *
 * The input is argv, its words ended by NUL. What the parser accepts must be what the
 * rest of worker-init relies on; what it refuses it must say in words.
 */
#include <stdlib.h>
#include <string.h>

#include "init.h"

#define MAX_WORDS 512
#define check(condition) ((condition) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_path(const char *path) {
    check(path[0] == '/' && strlen(path) < PATH_MAX);
    for (const char *at = path; (at = strstr(at, "/..")) != NULL; at += 3)
        check(at[3] != '\0' && at[3] != '/');
}

static void check_fds(const int *fds, size_t count) {
    for (size_t i = 0; i < count; i++)
        check(fds[i] >= 3);
}

static void check_who(const struct plan *plan) {
    check(plan->uid != (uid_t)-1 && plan->gid != (gid_t)-1 && (plan->uid == 0 || plan->capabilities == 0));
}

/* What the parser accepts for any use. */
static void check_plan(const struct plan *plan, char **argv, int argc) {
    check(plan->ngroups <= MAX_GROUPS && plan->nmounts <= MAX_MOUNTS && (plan->umask & ~0777u) == 0);
    check(strlen(plan->hostname) <= 64 && plan->cwd[0] == '/' && (plan->rootfs == NULL || plan->rootfs[0] == '/'));
    check(plan->argv > argv && plan->argv < argv + argc && strcmp(plan->argv[-1], "--") == 0);
    for (size_t i = 0; i < plan->nmounts; i++) {
        const struct mount_op *op = &plan->mounts[i];
        check_path(op->target);
        check(op->source[0] == '/' && (op->source == op->target) != (op->kind == MOUNT_BIND || op->kind == MOUNT_BIND_RO));
    }
}

static void check_run(const struct plan *plan) {
    const int fds[] = {plan->status_fd, plan->go_fd};
    check_fds(fds, sizeof fds / sizeof *fds);
    check(plan->net != NET_BRIDGE || (plan->address != 0 && plan->gateway != 0));
    check_who(plan);
}

static void check_enter(const struct plan *plan) {
    const int fds[] = {
        plan->cgroup_fd, plan->init_fd, plan->leash_fd, plan->status_fd, plan->stdout_fd, plan->stderr_fd,
    };
    check_fds(fds, sizeof fds / sizeof *fds);
    check_who(plan);
}

static void check_said(const char *wrong) { check(strlen(wrong) > 0 && strlen(wrong) < 128); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct plan plan;
    char *text = malloc(size + 1), *argv[MAX_WORDS + 1];
    int argc = 0;
    memcpy(text, data, size);
    text[size] = '\0';
    for (char *at = text; at < text + size && argc < MAX_WORDS; at += strlen(at) + 1)
        argv[argc++] = at;
    argv[argc] = NULL;
    const char *wrong = plan_parse(argc, argv, &plan);
    if (wrong == NULL) {
        check_plan(&plan, argv, argc);
        (wrong = plan_check_run(&plan)) == NULL ? check_run(&plan) : check_said(wrong);
        (wrong = plan_check_enter(&plan)) == NULL ? check_enter(&plan) : check_said(wrong);
    } else {
        check_said(wrong);
    }
    free(text);
    return 0;
}
