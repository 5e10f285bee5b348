"""The wheel's build hook: compiles worker-init and tags the wheel for its architecture.

One wheel serves every Python 3 and every Linux of that architecture: the binary
is fully static, so it needs no libc at all. `manylinux_2_17` and `musllinux_1_1`
promise "runs with this libc or a newer one", which holds for none; the plain
`linux_<arch>` tag would hide the wheel from package indexes.

Where worker-init cannot be compiled the wheel is for clients: without it, pure Python,
for every system. So it is on other systems than Linux, and on Linux without a compiler
(what fails to compile is an error). WORKER_CLIENT_ONLY=1 asks for it; =0 forbids it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

IN_PACKAGE = "workerd/init/worker-init"


class WorkerInitHook(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        script = _build_script(Path(self.root))
        if self._is_for_clients(script):
            return
        try:
            binary = script.build()
        except script.BuildError as error:
            if version != "editable":
                raise
            self.app.display_warning(str(error))  # a developer's C may be half written; `make init` says the rest
        arch = sysconfig.get_platform().removeprefix("linux-").replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_2_17_{arch}.musllinux_1_1_{arch}"
        if version != "editable":  # an editable install finds it in the tree
            build_data["force_include"][str(binary)] = IN_PACKAGE

    def _is_for_clients(self, script: Any) -> bool:
        """Raises ValueError on a setting that says neither."""
        setting = os.environ.get("WORKER_CLIENT_ONLY", "")
        if setting not in ("", "0", "1"):
            raise ValueError(f"WORKER_CLIENT_ONLY is {setting!r}: set it to 1, for workerctl alone, or to 0")
        if setting or sys.platform != "linux":
            return setting != "0"
        if script.can_build():
            return False
        self.app.display_warning(f"A client's wheel, without workerd.\n{script.NO_COMPILER}")
        return True


def _build_script(root: Path) -> Any:
    """workerd/init/build.py, by its path: the package itself needs what is not installed yet."""
    spec = importlib.util.spec_from_file_location("worker_init_build", root / "workerd/init/build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
