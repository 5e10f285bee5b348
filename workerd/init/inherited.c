/* What an exec does not reset: the command gets none of it from the daemon.
 *
 * Without the capability for it (the daemon in a container, say) the scheduling stays the
 * daemon's; what could give the command more than its plan says must not fail.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/securebits.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "init.h"

#define DEFAULT_SLACK_NS 50000ul /* timer slack of a fresh process: PR_SET_TIMERSLACK(2const) */

static void reset_scheduling(void) {
    const struct sched_param none = {0};
    unsigned char all_cpus[1024];
    memset(all_cpus, 0xff, sizeof all_cpus);
    syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &none);
    syscall(SYS_sched_setaffinity, 0, sizeof all_cpus, all_cpus); /* cpuset still bounds it */
    syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, 0);
    syscall(SYS_set_mempolicy, 0 /* MPOL_DEFAULT */, NULL, 0);
    setpriority(PRIO_PROCESS, 0, 0);
    prctl(PR_SET_TIMERSLACK, DEFAULT_SLACK_NS, 0, 0, 0);
    prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
}

void reset_inherited(void) {
    reset_scheduling();
    if (syscall(SYS_personality, 0) < 0)
        fail("personality", "");
    if (prctl(PR_GET_SECUREBITS, 0, 0, 0, 0) != 0 && prctl(PR_SET_SECUREBITS, SECUREBITS_DEFAULT, 0, 0, 0) < 0)
        fail("capabilities", "securebits");
}
