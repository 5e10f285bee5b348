"""The delegated cgroup subtree, and a job's cgroup in it.

    root/                   workerd-jobs.service, or what --cgroup names
      keeper/               whatever sat in root itself when workerd started
      jobs/
        uid-1000/           one user's jobs; the policy's totals for that user
          job-<id>/         one job; its limits

What must hold: no process sits in root, jobs/ or uid-*/ (the kernel lets no
controller be on beside them); every uid-*/ has all available controllers on for
its jobs before the first job is made in it. A uid-*/ stays when its last job
goes, so that its totals stay too; `prune` removes the empty ones. All calls
block, shortly; different JobCgroups may be used in different threads.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Collection
from pathlib import Path

from workerd import blockdev, cgrouplimits
from workerd.cgroupfiles import CgroupNode
from workerd.cgrouplimits import CONTROLLERS
from workerd.errors import ConfigError, MissingController
from workerd.job import Limits
from workerd.jobcgroup import JobCgroup, children

__all__ = ["CgroupTree", "JobCgroup", "default_root", "find_mount"]

SLICE, UNIT = "worker.slice", "workerd-jobs.service"
HOW_TO_BOOT = (
    "boot with the unified hierarchy (kernel command line: systemd.unified_cgroup_hierarchy=1 "
    "cgroup_no_v1=all), or start workerd with --allow-missing-controllers to do without"
)

_JOB = re.compile(r"job-([0-9A-Za-z]+)")
_UID = re.compile(r"uid-([0-9]+)")


def find_mount() -> Path | None:
    """Where cgroup2 is mounted (proc_pid_mountinfo(5)), the whole hierarchy rather
    than a part of it; None where it is not."""
    found = None
    with open("/proc/self/mountinfo", errors="surrogateescape") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            if after.split(" ", 1)[0] != "cgroup2":
                continue
            root, point = before.split()[3:5]
            point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
            if root == "/":
                return Path(point)
            found = found or Path(point)
    return found


def default_root() -> Path:
    """Where systemd puts workerd-jobs.service. Raises MissingController where no
    cgroup2 is mounted."""
    mount = find_mount()
    if mount is None:
        raise MissingController(f"no cgroup2 file system is mounted: {HOW_TO_BOOT}", controller="cgroup2")
    return mount / SLICE / UNIT


class CgroupTree:
    """The delegated subtree: keeper/ and jobs/ under `root`."""

    def __init__(self, root: Path, *, allow_missing: bool) -> None:
        self.root = root
        self.available: frozenset[str] = frozenset()
        self.missing = CONTROLLERS
        self._allow_missing = allow_missing
        self._jobs = root / "jobs"
        self._mount = root
        # What was written to uid-*/; None where an earlier daemon wrote it.
        self._totals: dict[int, Limits | None] = {}
        # Held while a job or a uid-*/ is made, so that none is made between
        # another thread's mkdir of uid-*/ and its switching on the controllers.
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make the tree, or make sure of it; live jobs notice nothing.

        Raises, unless `allow_missing`, MissingController where a controller that jobs
        are limited by is not offered (nothing is changed then) or cannot be switched
        on; ConfigError where root is no place for it; OSError.
        """
        offered = self._offered()
        if offered != CONTROLLERS and not self._allow_missing:
            raise self._missing(CONTROLLERS - offered)
        for path in (self.root, self.root / "keeper", self._jobs):
            path.mkdir(parents=True, exist_ok=True)
        with CgroupNode(self.root) as root:
            self._empty_root(root)
            self.available = _enable(root, offered)
        self.missing = CONTROLLERS - self.available
        if self.missing and not self._allow_missing:
            raise self._missing(self.missing)
        with CgroupNode(self._jobs) as jobs:
            _enable(jobs, self.available)
        self.prune()
        for path in map(Path, children(self._jobs)):
            with CgroupNode(path) as user:
                _enable(user, self.available)
            if uid := _UID.fullmatch(path.name):
                self._totals[int(uid[1])] = None

    def create(self, job_id: str, uid: int) -> JobCgroup:
        """A new cgroup for a job. Raises FileExistsError, OSError, and
        then there is none."""
        path = self._path(job_id, uid)
        with self._lock:
            try:
                os.mkdir(path)
            except FileNotFoundError:
                self._make_user(uid)
                os.mkdir(path)
        try:
            return self.open(job_id, uid)
        except BaseException:
            os.rmdir(path)
            raise

    def open(self, job_id: str, uid: int) -> JobCgroup:
        """The cgroup of a job that has one. Raises FileNotFoundError."""
        path = self._path(job_id, uid)
        context = cgrouplimits.Context(self.available, self._mount, blockdev.Caller(uid))
        return JobCgroup(CgroupNode(path), context)

    def scan(self) -> list[tuple[int, str]]:
        """(uid, job id) of every job cgroup that there is."""
        found = []
        for user in children(self._jobs):
            if uid := _UID.fullmatch(os.path.basename(user)):
                names = map(os.path.basename, children(user))
                found += [(int(uid[1]), job[1]) for name in names if (job := _JOB.fullmatch(name))]
        return found

    def user_limits(self, uid: int, limits: Limits) -> None:
        """The totals of one user: memory, swap, pids and cpus of `limits`; None
        lifts one. `pids` counts the PID 1 of each job as well. Costs nothing when
        the same was written before. Raises MissingController, InvalidParams, OSError.
        """
        if self._totals.get(uid, Limits()) == limits:
            return
        cgrouplimits.require(limits, self.available)
        with self._lock:
            path = self._jobs / f"uid-{uid}"
            if not path.exists():
                self._make_user(uid)
            with CgroupNode(path) as user:
                cgrouplimits.write_totals(user, limits, self.available)
            self._totals[uid] = limits

    def prune(self) -> None:
        """Remove the users' cgroups that hold no job."""
        with self._lock:
            for path in children(self._jobs):
                try:
                    os.rmdir(path)
                except OSError:
                    continue  # has jobs
                if uid := _UID.fullmatch(os.path.basename(path)):
                    self._totals.pop(int(uid[1]), None)

    def _path(self, job_id: str, uid: int) -> str:
        name = f"job-{job_id}"
        if not _JOB.fullmatch(name):
            raise ValueError(f"not a job id: {job_id!r}")
        return f"{self._jobs}/uid-{uid}/{name}"  # not Path's `/`, which each start would pay for

    def _make_user(self, uid: int) -> None:
        path = self._jobs / f"uid-{uid}"
        path.mkdir(exist_ok=True)
        with CgroupNode(path) as user:
            _enable(user, self.available)
        self._totals.pop(uid, None)

    def _offered(self) -> frozenset[str]:
        """The controllers that root has, or would have if it were made. Raises
        ConfigError where no cgroup of ours can be."""
        above = self.root
        while not above.exists():
            above = above.parent
        if not (above / "cgroup.controllers").exists():
            raise ConfigError(f"{self.root} is not in a cgroup2 file system", path=str(self.root), line=0)
        self._mount = above
        while (self._mount.parent / "cgroup.controllers").exists():
            self._mount = self._mount.parent
        if not (self.root / "cgroup.events").exists() and above == self.root:
            # Moving what sits here would be moving the machine's own processes.
            message = f"{self.root} is the root of the cgroup hierarchy: name a cgroup below it"
            raise ConfigError(message, path=str(self.root), line=0)
        with CgroupNode(above) as node:
            return CONTROLLERS & (node.core.controllers if above == self.root else node.core.subtree_control)

    def _empty_root(self, root: CgroupNode) -> None:
        """Move what sits in root itself to keeper/. Again while it forks."""
        with CgroupNode(self.root / "keeper") as keeper:
            while pids := root.core.procs:
                if not any(pids):  # and to write 0 would move ourselves
                    raise OSError(errno.EBUSY, "processes of another PID namespace are in it", str(self.root))
                for pid in filter(None, pids):
                    try:
                        keeper.core.procs = [pid]
                    except ProcessLookupError:
                        pass

    def _missing(self, missing: Collection[str]) -> MissingController:
        names = ", ".join(sorted(missing))
        try:
            whole = CONTROLLERS.issubset((self._mount / "cgroup.controllers").read_text().split())
        except OSError:
            whole = False
        if whole:
            advice = f"switch them on in cgroup.subtree_control of the cgroups above (Delegate={names} for a unit)"
        else:
            advice = HOW_TO_BOOT
        return MissingController(f"{self.root} lacks the cgroup v2 controllers {names}: {advice}", controller=names)


def _enable(node: CgroupNode, wanted: frozenset[str]) -> frozenset[str]:
    """Switch controllers on for the children of `node`; those of `wanted` that are
    on then. Together, since each write may wait for an RCU grace period."""
    lacking = wanted - node.core.subtree_control
    if lacking and not _switch_on(node, lacking):
        for name in lacking:
            _switch_on(node, frozenset({name}))
    return wanted & node.core.subtree_control


def _switch_on(node: CgroupNode, names: frozenset[str]) -> bool:
    """False where the kernel will not: cpu, say, while realtime tasks have groups
    of their own."""
    try:
        node.core.subtree_control = names
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return False
    return True
