"""The product on its way into the guest, and its installation there.

What travels: the checkout's files (tracked, and untracked but not ignored,
less what an installation does not need), and a wheelhouse: the product's own
wheel, built from those files, and its dependencies' wheels for the guest's
Python. The guest has no network. In it runs, as a user would run it,

    make install WHEELHOUSE=/usr/src/NAME/wheelhouse

in /usr/src/NAME/tree, which is to mean: pip with --no-index --find-links of
that directory, and the product's own wheel from there too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vmlib import cache, tools
from vmlib.errors import BuildFailed, MissingTool
from vmlib.machine import Machine
from vmlib.notice import step

# Not shipped: a change there must not cost a new installation.
LEFT_OUT = ("tests/", "docs/", ".ci/", ".git", "scripts/demo")

GLIBC_MINOR = 36  # of Debian 12, the oldest guest
INSTALL_SECONDS = 900.0


@dataclass(frozen=True)
class File:
    """A file of the tree as it was when it was read; a link's content is its target."""

    name: str
    content: bytes
    executable: bool = False
    link: bool = False

    @classmethod
    def read(cls, tree: Path, name: str) -> File:
        path = tree / name
        if path.is_symlink():
            return cls(name, os.readlink(path).encode(), link=True)
        return cls(name, path.read_bytes(), executable=bool(path.stat().st_mode & 0o100))

    def write(self, tree: Path) -> None:
        path = tree / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.link:
            path.symlink_to(self.content.decode())
            return
        path.write_bytes(self.content)
        path.chmod(0o755 if self.executable else 0o644)


@dataclass(frozen=True)
class Cargo:
    """What of a source tree is shipped. `name` is the project's, from pyproject.toml.

    The files are held in memory, so that what is built is what the key says,
    even when somebody edits the tree meanwhile.
    """

    name: str
    dependencies: tuple[str, ...]
    files: tuple[File, ...]
    key: str


def shipped_names(tree: Path) -> list[str]:
    """The tree's files that travel, relative and sorted."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = tools.run(listing, cwd=tree).decode().split("\0")
    kept = {name for name in names if name and not name.startswith(LEFT_OUT)}
    # A tracked file can be deleted in the checkout; a link to nowhere is still a file.
    return sorted(name for name in kept if os.path.lexists(tree / name))


def survey(tree: Path) -> Cargo:
    """Read a source tree. Raises BuildFailed when it has no usable pyproject.toml."""
    try:
        project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
        name = project["name"]
    except (FileNotFoundError, KeyError, tomllib.TOMLDecodeError) as error:
        raise BuildFailed(f"{tree}: no usable pyproject.toml: {error!r}") from error
    files = tuple(File.read(tree, name) for name in shipped_names(tree))
    key = cache.key(Path(__file__).read_bytes(), *(repr(file) for file in files))
    needs = (*project.get("dependencies", ()), *project.get("optional-dependencies", {}).get("daemon", ()))
    return Cargo(name, needs, files, key)


def prepare(cargo: Cargo, python: str, where: Path) -> Path:
    """Fill the directory `where` with tree/ and wheelhouse/ for the guest's Python."""
    tree, wheelhouse = where / "tree", where / "wheelhouse"
    for file in cargo.files:
        file.write(tree)
    with step("the product's wheel"):
        build_wheel(tree, wheelhouse)
    if not cargo.dependencies:
        return where
    with dependencies(cargo.dependencies, python) as wheels:
        for wheel in wheels.glob("*.whl"):
            shutil.copy2(wheel, wheelhouse)
    return where


def build_wheel(tree: Path, wheelhouse: Path) -> None:
    """The product's wheel, from a copy: a build leaves things in its tree."""
    with tempfile.TemporaryDirectory(dir=tree.parent) as scratch:
        copy = Path(scratch) / "tree"
        shutil.copytree(tree, copy, symlinks=True)
        pip("wheel", "--no-deps", "--wheel-dir", wheelhouse, copy)


@contextmanager
def dependencies(requirements: tuple[str, ...], python: str) -> Iterator[Path]:
    """A directory of wheels of all that these requirements need, for the guest's Python."""
    name = cache.key(python, *requirements)

    def collect(where: Path) -> None:
        with step(f"wheels of the dependencies for Python {python}"):
            # What comes as source alone becomes a wheel here, which the
            # download for another Python then finds.
            pip("wheel", "--wheel-dir", where, *requirements)
            platforms = [f"--platform={name}" for name in guest_platforms()]
            only = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
            pip("download", *only, *platforms, "--find-links", where, "--dest", where, *requirements)

    with cache.entry("wheels", name, collect) as path:
        yield path


def guest_platforms() -> list[str]:
    """The platform tags that a guest takes, newest first; pip wants each by name."""
    minors = range(GLIBC_MINOR, 16, -1)
    return [*(f"manylinux_2_{m}_x86_64" for m in minors), "manylinux2014_x86_64", "linux_x86_64"]


def pip(*arguments: str | os.PathLike[str]) -> None:
    """Run this Python's pip, else the machine's. Raises BuildFailed, MissingTool."""
    for python in (sys.executable, tools.find("python3")):
        if python and subprocess.run([python, "-m", "pip", "-V"], capture_output=True).returncode == 0:
            tools.run([python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])
            return
    raise MissingTool("no pip for python3; on Debian: apt-get install python3-pip")


def install(machine: Machine, cargo_directory: Path, name: str) -> None:
    """Install in the running guest as a user would. Raises CommandFailed with the output."""
    home = f"/usr/src/{name}"
    machine.push(cargo_directory, home)
    machine.run(
        ["make", "install", f"WHEELHOUSE={home}/wheelhouse"],
        cwd=f"{home}/tree",
        check=True,
        timeout=INSTALL_SECONDS,
    )
