"""Trees and packages for tests: a copy of what git would hold, and what is built from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_COMPILER = {"PATH": "/nowhere"}
"""an environment without cc"""


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """Its stdout; AssertionError with all that it said where it fails."""
    done = subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_tree(copy: Path) -> Path:
    """So that a build there disturbs no other test."""
    for name in ("workerd", "workerctl", "systemd", "scripts"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("worker-init*", "__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "Makefile", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def build(target: str, tree: Path, into: Path, **env: str) -> Path:
    """The tree's wheel or sdist."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", into, cwd=tree, **env)
    (made,) = into.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return made
