"""KVM where it works, emulation (TCG) elsewhere.

/dev/kvm can be there, open, and then not run a guest: on a nested machine
seen with this project, `-cpu host` aborts qemu on an MSR, and without that MSR
the vCPU hangs when the kernel leaves the BIOS. Only the guest's first line,
printed by our initial RAM disk, proves that it works. The verdict holds for
one boot of the host and is kept in the cache. WORKER_VM_ACCEL=kvm|tcg decides
by hand.
"""

from __future__ import annotations

import os
from pathlib import Path

from vmlib import cache
from vmlib.notice import say

FIRST_LINE = b"worker-vm: kernel is up"
FIRST_LINE_SECONDS = 10.0  # a working KVM takes well under one

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

ARGUMENTS = {
    # The MSR of this feature is what a nested KVM may refuse to set.
    "kvm": ["-accel", "kvm", "-cpu", "host,-arch-capabilities"],
    "tcg": ["-accel", "tcg,thread=multi", "-cpu", "max"],
}


def choose() -> str:
    """Give "kvm" or "tcg": what is asked for, what is known, else what may be tried."""
    asked = os.environ.get("WORKER_VM_ACCEL", "")
    if asked in ARGUMENTS:
        return asked
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    return remembered() or "kvm"


def remembered() -> str | None:
    try:
        boot_id, verdict = (cache.root() / "kvm").read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return verdict if boot_id == BOOT_ID.read_text().strip() else None


def is_proven(accelerator: str) -> bool:
    """Whether there is no need to watch this start."""
    return accelerator == "tcg" or remembered() == accelerator


def remember(verdict: str) -> None:
    """Keep the verdict for this boot of the host."""
    path = cache.root() / "kvm"
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(f"{BOOT_ID.read_text().strip()} {verdict}\n")
    partial.replace(path)
    if verdict == "tcg":
        say("KVM is there but does not run a guest; emulating (TCG), some 25 times slower")
