"""The machine's own apt sources, narrowed to one Debian release.

No mirror is named here: whatever this machine is told to use (a local mirror,
a proxy, a snapshot) is used for the guest too. WORKER_VM_SOURCES names another
file, for a host that is not Debian or whose sources have no such release.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vmlib.errors import BuildFailed
from vmlib.tools import find, run

Stanza = dict[str, str]

LIST_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<rest>.+)")
POCKETS = ("", "-updates", "-security")

# Settings of the machine's apt without which its sources may not be reachable.
CARRIED_SETTINGS = re.compile(r"Acquire::(?:(?:https?|ftp)::.*|Check-Date|Check-Valid-Until|Retries)\s")


def paths() -> list[Path]:
    """The files apt itself would read."""
    chosen = os.environ.get("WORKER_VM_SOURCES")
    if chosen:
        return [Path(chosen)]
    etc = Path("/etc/apt")
    parts = sorted(etc.joinpath("sources.list.d").glob("*"))
    return [etc / "sources.list", *(p for p in parts if p.suffix in (".list", ".sources"))]


def parse_list(text: str) -> Iterator[Stanza]:
    """The one-line style: deb [option=value …] URI SUITE COMPONENT…"""
    for line in text.splitlines():
        match = LIST_LINE.fullmatch(line.split("#", 1)[0].strip())
        if match is None:
            continue
        suite, *components = match["rest"].split()
        stanza = {"types": "deb", "uris": match["uri"], "suites": suite}
        stanza["components"] = " ".join(components)
        for option in (match["options"] or "").split():
            key, _, value = option.partition("=")
            names = {"arch": "architectures", "lang": "languages", "target": "targets"}
            stanza[names.get(key, key)] = value.replace(",", " ")
        yield stanza


def parse_deb822(text: str) -> Iterator[Stanza]:
    """The deb822 style; a field's further lines keep their indentation (embedded keys)."""
    for block in re.split(r"\n[ \t]*\n", text):
        stanza: Stanza = {}
        key = ""
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                if key:
                    stanza[key] += "\n" + line
            elif ":" in line:
                name, _, value = line.partition(":")
                key = name.strip().lower()
                stanza[key] = value.strip()
        if stanza.get("enabled", "yes").lower() not in ("no", "false", "0"):
            yield stanza


def machine_codename() -> str:
    """What Debian release this machine is, or "" where it does not say."""
    text = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    match = re.search(r'^VERSION_CODENAME="?([^"\n]*)"?$', text, re.MULTILINE)
    return match[1] if match else ""


def read() -> list[Stanza]:
    """All sources of binary packages that the machine has."""
    stanzas: list[Stanza] = []
    for path in paths():
        if path.is_file():
            parse = parse_list if path.suffix == ".list" else parse_deb822
            stanzas += parse(path.read_text())
    return [s for s in stanzas if "deb" in s.get("types", "").split() and s.get("uris")]


def narrow(stanza: Stanza, have: str, want: str) -> Stanza | None:
    """The stanza's suites of the release `have`, renamed to those of `want`."""
    renamed = {have + pocket: want + pocket for pocket in POCKETS}
    suites = [renamed[s] for s in stanza.get("suites", "").split() if s in renamed]
    if not suites:
        return None
    kept = {key: value for key, value in stanza.items() if key != "enabled"}
    return kept | {"types": "deb", "suites": " ".join(suites)}


def for_release(release: str) -> str:
    """A deb822 file's text for `release`, from the machine's sources. Raises BuildFailed."""
    stanzas = read()
    for have in dict.fromkeys((release, machine_codename())):
        found = [n for s in stanzas if have and (n := narrow(s, have, release))]
        if any(release in stanza["suites"].split() for stanza in found):
            return "\n".join("".join(f"{key.title()}: {value}\n" for key, value in stanza.items()) for stanza in found)
    looked = ", ".join(str(path) for path in paths() if path.is_file()) or "none"
    raise BuildFailed(
        f"no apt source for Debian {release} or for this machine's own release in: {looked}.\n"
        "Name a sources file (deb822 or one-line style) in WORKER_VM_SOURCES."
    )


def unreachable(release: str) -> str | None:
    """Why these sources have no such release, asked of apt itself; None where they have it,
    or nobody can be asked."""
    helper = Path("/usr/lib/apt/apt-helper")
    if not helper.exists():
        return None
    try:
        for stanza in parse_deb822(for_release(release)):
            if release in stanza["suites"].split():
                address = f"{stanza['uris'].split()[0].rstrip('/')}/dists/{release}/InRelease"
                with tempfile.TemporaryDirectory() as place:
                    run([helper, "download-file", address, f"{place}/InRelease"])
    except BuildFailed as error:
        return f"Debian {release} cannot be reached from this machine's apt sources: {error}"
    return None


def apt_settings() -> list[str]:
    """The machine's apt settings that reaching its sources depends on."""
    if find("apt-config") is None:
        return []
    dump = run(["apt-config", "dump"]).decode()
    return [line for line in dump.splitlines() if CARRIED_SETTINGS.match(line)]
