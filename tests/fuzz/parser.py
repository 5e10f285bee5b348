"""Fuzzes worker-init's argument parser with libFuzzer, ASan and UBSan.

    python -m tests.fuzz.parser [RUNS [SEED]]     10 million, unless told

Exits with libFuzzer's status, not 0 where an input crashed the parser or made it accept
what it must not; the input is then in build/fuzz/.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
INIT = ROOT / "workerd" / "init"
BUILD = ROOT / "build" / "fuzz"
SANITIZERS = "-fsanitize=fuzzer,address,undefined"
VALUES = (
    *"0 3 9 4294967294 4294967295 18446744073709551615 fff 1ff , 1,2,3 none bridge host / /a /a/../b /a/. //x".split(),
    "--",
)
BASE = "--status-fd 6 --go-fd 9 --uid {uid} --gid 1000"
PLANS = (
    BASE.format(uid=1000)
    + " --groups 1,2 --umask 022 --rw /srv --bind /a /b --tmpfs /t 4096 --hide /var/x -- sh -c x",
    BASE.format(uid=0)
    + " --capabilities 4fb --net bridge --address 10.0.0.2/24 --gateway 10.0.0.1 --cgroup-fd 8 --no-seccomp -- true",
    BASE.format(uid=7)
    + " --rootfs /r --cwd /w --cwd-read-only --hostname h --ro /e --bind-ro /a /b --stdin-fd 9 -- id",
)


def options() -> list[str]:
    """All options, as plan.c has them."""
    return sorted(set(re.findall(r'\{"(--[a-z-]+)", [0-9]\}', (INIT / "plan.c").read_text())))


def clang() -> str | None:
    """The compiler, where there is one with libFuzzer (scripts/bootstrap installs it)."""
    if not list(Path("/usr/lib").glob("llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a")):
        return None
    names = ("clang", *(f"clang-{version}" for version in range(22, 12, -1)))
    return next((found for name in names if (found := shutil.which(name))), None)


def build() -> Path:
    """The fuzzer's binary. Raises FileNotFoundError where there is no clang."""
    compiler = clang()
    if compiler is None:
        raise FileNotFoundError("clang is not installed: apt-get install clang")
    BUILD.mkdir(parents=True, exist_ok=True)
    binary = BUILD / "plan-fuzzer"
    command = [compiler, "-std=gnu11", "-g", "-O1", SANITIZERS, "-fno-sanitize-recover=all", f"-I{INIT}"]
    subprocess.run([*command, "-o", binary, HERE / "plan_target.c", INIT / "plan.c"], check=True)
    return binary


def fuzz(runs: int, seed: int, corpus: Path) -> subprocess.CompletedProcess[str]:
    """One run over `corpus`, which is made, and filled with what finds new paths."""
    binary = build()
    corpus.mkdir(parents=True, exist_ok=True)
    for number, plan in enumerate(PLANS):
        (corpus / f"plan-{number}").write_bytes(b"".join(word.encode() + b"\0" for word in plan.split()))
    dictionary = BUILD / "words"
    dictionary.write_text("".join(f'"{word}\\x00"\n' for word in (*options(), *VALUES)))
    command = [binary, f"-runs={runs}", f"-seed={seed}", f"-dict={dictionary}", f"-artifact_prefix={BUILD}/"]
    command += ["-max_len=4096", "-print_final_stats=1", "-verbosity=0", str(corpus)]
    return subprocess.run(
        list(map(str, command)), text=True, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, check=False
    )


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    done = fuzz(runs, seed, BUILD / "corpus")
    print(done.stdout, end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
