"""Trees and packages for tests: a copy of what git would hold, and what is built from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
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
    for name in ("workerd", "workerctl", "systemd", "scripts", "packaging", "docs", "man"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("worker-init*", "__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "Makefile", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def build(target: str, tree: Path, into: Path, **env: str) -> Path:
    """The tree's wheel or sdist."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", into, cwd=tree, **env)
    (made,) = into.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return made


def empty_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel with nothing in it, in place of a dependency."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def build_deb(tree: Path, wheelhouse: Path, into: Path, *pythons: str) -> Path:
    """The tree's Debian package, for these Pythons, always of the same date."""
    given = {"PYTHON": sys.executable, "WHEELHOUSE": str(wheelhouse), "PYTHONS": " ".join(pythons)}
    run("scripts/deb", cwd=tree, DEB_DIST=str(into), SOURCE_DATE_EPOCH="1700000000", **given)
    (made,) = into.glob("*.deb")
    return made
