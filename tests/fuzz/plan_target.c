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

static void check_plan(const struct plan *plan, char **argv, int argc) {
    const int fds[] = {plan->log_fd, plan->index_fd, plan->exit_fd, plan->status_fd, plan->control_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        check(fds[i] >= 3);
    check(plan->uid != (uid_t)-1 && plan->gid != (gid_t)-1 && (plan->uid == 0 || plan->capabilities == 0));
    check(plan->ngroups <= MAX_GROUPS && plan->nmounts <= MAX_MOUNTS && (plan->umask & ~0777u) == 0);
    check(plan->net != NET_BRIDGE || plan->net_fd >= 3);
    check(strlen(plan->hostname) <= 64 && plan->cwd[0] == '/' && (plan->rootfs == NULL || plan->rootfs[0] == '/'));
    check(plan->argv > argv && plan->argv < argv + argc && strcmp(plan->argv[-1], "--") == 0);
    for (size_t i = 0; i < plan->nmounts; i++) {
        check_path(plan->mounts[i].target);
        check(plan->mounts[i].source == NULL || plan->mounts[i].source[0] == '/');
        check((plan->mounts[i].source != NULL) == (plan->mounts[i].kind == MOUNT_BIND || plan->mounts[i].kind == MOUNT_BIND_RO));
    }
}

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
    if (wrong == NULL)
        check_plan(&plan, argv, argc);
    else
        check(strlen(wrong) > 0 && strlen(wrong) < 128);
    free(text);
    return 0;
}
