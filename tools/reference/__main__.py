"""`python -m tools.reference [--check]`: `make docs`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.reference.pages import PAGES

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools.reference", description="Make the reference pages from the sources.")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where a page is not what it would be")
    check = parser.parse_args().check
    stale = [name for name, make in PAGES.items() if _brought(ROOT / name, make(), write=not check)]
    for name in stale:
        print(f"{'stale' if check else 'written'}: {name}")
    return 1 if stale and check else 0


def _brought(path: Path, text: str, *, write: bool) -> bool:
    """Whether the file was another one."""
    if path.exists() and path.read_text() == text:
        return False
    if write:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return True


if __name__ == "__main__":
    sys.exit(main())
