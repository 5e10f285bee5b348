"""How worker-init is built: every `*.c` beside this file, into one static binary.

Used by the wheel's build hook (hatch_build.py), by the Makefile and by hand:

    python3 workerd/init/build.py              worker-init, if a source is newer
    python3 workerd/init/build.py --sanitize   worker-init-asan, for tests
    python3 workerd/init/build.py --analyze    only gcc's -fanalyzer, no output

Standard library only, since it also runs where nothing is installed yet.
musl-gcc is preferred: its binary has a fortieth of static glibc's size, starts
three times faster and keeps less private memory in each running job.
WORKER_INIT_CC names another compiler.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
BINARY = HERE / "worker-init"
SANITIZED = HERE / "worker-init-asan"
VERSION_FILE = HERE.parent / "__init__.py"

WARNINGS = "-std=gnu11 -Wall -Wextra -Werror -Wshadow -Wformat=2 -Wmissing-prototypes".split()
# No -fPIE: Debian's musl-gcc cannot link a static PIE, and the one attacker of
# this program is a job that can read its own /proc/1/maps anyway.
HARDENING = (
    "-O2 -fstack-protector-strong -fno-strict-aliasing -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 "
    "-Wl,-z,relro,-z,now,-z,noexecstack -Wl,--build-id=none -s"
).split()
# What is small lies together, apart from the buffers: each page that PID 1 writes to is a copy of the first stage's.
LAYOUT = "-fdata-sections -Wl,--sort-section=alignment".split()
SANITIZERS = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all".split()
NO_COMPILER = (
    "worker-init cannot be built: no C compiler was found. Install one:\n"
    "  Debian, Ubuntu:  apt-get install gcc libc6-dev musl-tools\n"
    "  Fedora:          dnf install gcc glibc-static musl-gcc\n"
    "  Alpine:          apk add gcc musl-dev linux-headers"
)


class BuildError(Exception):
    """The message says what to do."""


def sources() -> list[Path]:
    """Raises BuildError where there are none."""
    found = sorted(HERE.glob("*.c"))
    if not found:
        raise BuildError(f"worker-init cannot be built: no C sources in {HERE}")
    return found


def compiler() -> str:
    """The compiler to use. Raises BuildError where there is none."""
    for name in (os.environ.get("WORKER_INIT_CC"), "musl-gcc", "cc", "gcc"):
        if name and shutil.which(name):
            return name
    raise BuildError(NO_COMPILER)


def is_current(binary: Path) -> bool:
    """Whether the binary is newer than all that it is made of."""
    if not binary.exists():
        return False
    made_of = [*sources(), *HERE.glob("*.h"), VERSION_FILE, Path(__file__)]
    return all(path.stat().st_mtime_ns < binary.stat().st_mtime_ns for path in made_of)


def can_build() -> bool:
    """Whether there is a compiler, or nothing left to compile."""
    try:
        return is_current(BINARY) or bool(compiler())
    except BuildError:
        return False


def _version() -> str:
    found = re.search(r'^__version__ = "([0-9A-Za-z.+-]+)"$', VERSION_FILE.read_text(), re.MULTILINE)
    if found is None:
        raise BuildError(f"no __version__ in {VERSION_FILE}")
    return found[1]


def _kernel_headers(directory: Path) -> list[str]:
    """Flags that let musl-gcc, which sees musl's headers alone, find the kernel's too.

    Only these three directories: glibc's own headers beside them must stay unseen.
    """
    gnu = subprocess.run(["cc", "-print-multiarch"], capture_output=True, text=True, check=False).stdout.strip()
    for name in ("linux", "asm-generic", "asm"):
        for parent in (Path("/usr/include"), Path("/usr/include") / gnu):
            if (parent / name).is_dir() and not (directory / name).exists():
                (directory / name).symlink_to(parent / name)
    return ["-idirafter", str(directory)]


def _compile(flags: list[str], compiler_name: str, output: Path) -> None:
    defines = [f'-DWORKER_VERSION="{_version()}"']
    command = [compiler_name, *WARNINGS, *flags, *defines, "-o", str(output), *map(str, sources())]
    with tempfile.TemporaryDirectory(prefix="worker-init-") as headers:
        if "musl" in Path(compiler_name).name:
            command += _kernel_headers(Path(headers))
        done = subprocess.run(command, check=False)
    if done.returncode != 0:
        raise BuildError(
            f"{compiler_name} failed to build worker-init (above). "
            "A linker that finds no libc.a lacks the static C library: install musl-tools (or glibc-static)."
        )


def _compile_into_place(flags: list[str], compiler_name: str, binary: Path) -> Path:
    """Never written in place: a running job may be executing the old one (ETXTBSY)."""
    made = binary.with_name(f"{binary.name}-{os.getpid()}.tmp")
    try:
        _compile(flags, compiler_name, made)
        made.chmod(0o755)
        made.replace(binary)
    finally:
        made.unlink(missing_ok=True)
    return binary


def build(*, force: bool = False) -> Path:
    """worker-init, made anew where a source is newer. Raises BuildError."""
    if not force and is_current(BINARY):
        return BINARY
    return _compile_into_place(["-static", *HARDENING, *LAYOUT], compiler(), BINARY)


def build_sanitized(*, force: bool = False) -> Path:
    """worker-init-asan: dynamic and with gcc or clang, as the sanitizers need it."""
    if not force and is_current(SANITIZED):
        return SANITIZED
    return _compile_into_place(SANITIZERS, "cc", SANITIZED)


def analyze() -> None:
    """gcc's static analyzer over every source; its findings are errors."""
    for source in sources():
        command = ["gcc", *WARNINGS, "-O2", "-fanalyzer", "-c", "-o", os.devnull, str(source)]
        if subprocess.run(command, check=False).returncode != 0:
            raise BuildError(f"gcc -fanalyzer: see above ({source.name})")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build worker-init.")
    parser.add_argument("--sanitize", action="store_true", help="build worker-init-asan instead")
    parser.add_argument("--analyze", action="store_true", help="run gcc -fanalyzer instead")
    parser.add_argument("--force", action="store_true", help="build even if nothing is newer")
    options = parser.parse_args()
    try:
        if options.analyze:
            analyze()
        else:
            print((build_sanitized if options.sanitize else build)(force=options.force))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
