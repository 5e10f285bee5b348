"""/etc/workerd/workerd.toml: read by workerd itself, with the line where it is wrong."""

from __future__ import annotations

import os
import sys

from workerctl.doctor import FAILED, OK, WARNING, Finding, Host

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "/etc/workerd/workerd.toml"


def check(host: Host) -> Iterator[Finding]:
    if not host.exists(PATH):
        yield Finding("policy", OK, f"no {PATH}: the defaults hold")
        return
    if not os.access(host.path(PATH), os.R_OK):
        yield Finding("policy", WARNING, f"{PATH} may not be read by you", "try again as root")
        return
    isolated = ["-I"] if sys.flags.isolated else []
    ran = host.run(sys.executable, *isolated, "-m", "workerd", "--config", host.path(PATH), "--check-config")
    if ran is None:
        yield Finding("policy", WARNING, "workerd --check-config does not answer", "run it by hand")
    elif ran[0] == 0:
        yield Finding("policy", OK, f"{PATH} is well-formed")
    else:
        said = ran[1].splitlines()[-1] if ran[1] else "refused"
        yield Finding("policy", FAILED, said, f"mend {PATH}, then: systemctl reload-or-restart workerd")
