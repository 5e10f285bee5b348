"""The documentation against the code: commands, options, links, settings, messages, pictures."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from workerctl import prometheus
from workerctl.cli import main as workerctl
from workerctl.options import COMMON, parse
from workerctl.spec import run_params
from workerctl.topics import TOPICS
from workerctl.verbs import ALIASES, VERBS, load
from workerd import config
from workerd.__main__ import argument_parser
from workerd.netconfig import NetworkSection

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))]
FOREIGN = ("coming-from.md",)
"""pages that name other programs' options"""
FENCE = re.compile(r"^```([a-z]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = re.compile(r"^(?:[a-z]+[#$]|\$) ")
OPERATORS = re.compile(r"[;&|()<>]+")
OPTION = re.compile(r"--[a-z][a-z0-9-]+")


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def spans(page: Path) -> list[str]:
    """What stands between backquotes, on one line when it is broken over two."""
    return [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose(page))]


def shell_lines(page: Path) -> Iterator[str]:
    for language, block in FENCE.findall(page.read_text()):
        if language in ("", "console", "sh"):
            for line in block.replace("\\\n", "").splitlines():
                if PROMPT.match(line) or line.startswith(("workerctl ", "sudo ", ".venv/bin/")):
                    yield PROMPT.sub("", line)


def commands(line: str) -> Iterator[list[str]]:
    """The words of each `workerctl …` in a shell line, without redirections."""
    lexer = shlex.shlex(line.replace("$(", "( "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if OPERATORS.fullmatch(token):
            found = next((place for place, word in enumerate(words) if word.rpartition("/")[2] == "workerctl"), None)
            if found is not None:
                yield words[found + 1 :]
            words = []
        else:
            words.append(token)


def all_commands() -> list[tuple[str, str, list[str]]]:
    found = []
    for page in PAGES:
        lines = [*shell_lines(page), *(span for span in spans(page) if span.startswith("workerctl "))]
        for line in lines:
            found += [(page.name, line, words) for words in commands(line.replace("…", ""))]
    return found


COMMANDS = all_commands()


class TestCommands:
    def test_are_found(self) -> None:
        assert len(COMMANDS) > 150
        assert list(commands("a | workerctl run -f sh -c 'x; y' && b $(workerctl ps -q) > f")) == [
            ["run", "-f", "sh", "-c", "x; y"],
            ["ps", "-q"],
        ]

    @pytest.mark.parametrize(("page", "line", "words"), COMMANDS, ids=lambda value: str(value)[:60])
    def test_is_taken_as_it_is_written(self, page: str, line: str, words: list[str]) -> None:
        while words and words[0].startswith("-"):
            words = words[2:]  # of the whole program: --socket PATH
        if not words:
            return
        name = ALIASES.get(words[0], words[0])
        assert name in VERBS, f"{page}: no verb {words[0]!r} in: {line}"
        args = parse(load(name).VERB, words[1:])
        if name == "run" and args.words:
            run_params(args)
        if name == "help":
            assert all(word in {*VERBS, *ALIASES, *TOPICS, "VERB", "TOPIC"} for word in args.words)

    @pytest.mark.parametrize("page", [page for page in PAGES if page.name not in FOREIGN], ids=lambda page: page.name)
    def test_options_in_the_text_exist(self, page: Path) -> None:
        known = {flag for option in COMMON for flag in option.flags}
        for verb in VERBS:
            known |= {flag for group in load(verb).VERB.groups.values() for option in group for flag in option.flags}
        known |= set(OPTION.findall(argument_parser().format_help()))
        named = {span.split()[0].partition("=")[0] for span in spans(page) if OPTION.match(span)}
        others = {"--commit", "--resources", "--sparse", "--strict"}  # make bench, dask worker, tar, mypy
        assert named <= known | others

    def test_help_of_a_verb_is_not_shadowed(self) -> None:
        assert not set(TOPICS) & {*VERBS, *ALIASES} and workerctl(["help", "run"]) == 0


def slug(heading: str) -> str:
    """As GitHub makes an anchor of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)}


class TestLinks:
    @pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
    def test_lead_somewhere(self, page: Path) -> None:
        broken = []
        text = re.sub(r"`[^`\n]*`", "", prose(page))  # a pattern in code may look like a link
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            if not there.exists() or (anchor and anchor not in anchors(there)):
                broken.append(target)
        assert not broken

    def test_every_page_is_in_the_index(self) -> None:
        index = (ROOT / "docs" / "README.md").read_text()
        assert [page.name for page in PAGES if page.parent.name == "docs" and f"({page.name})" not in index] == [
            "README.md"
        ]

    def test_pictures_need_nothing_from_elsewhere(self) -> None:
        drawn = [*(ROOT / "docs" / "pictures").glob("*.svg"), *(ROOT / "docs" / "figures").glob("*.svg")]
        assert len(drawn) >= 5
        for picture in drawn:
            text = picture.read_text()
            assert not re.search(r"@import|@font-face|url\((?!#)|(?:href|src)=\"(?!#)", text), picture
            assert len(text) < 100_000, picture


CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
ROW = re.compile(r"^\| `([a-z_]+)` \| ([^|]+) \| ([^|]+) \| (?:[^|]+) \| `([^|]+)` \|$", re.MULTILINE)


def documented() -> dict[str, dict[str, tuple[str, str]]]:
    """Of each table of the file, by its heading: key → (default, example)."""
    found = {}
    for part in CONFIGURATION.split("\n## ")[1:]:
        heading, _, text = part.partition("\n")
        rows = {row[1]: (row[3], row[4]) for row in ROW.finditer(text)}
        if rows:
            found[heading.strip("[]")] = rows
    return found


class TestConfiguration:
    def test_every_setting_has_a_row_and_no_other_has(self) -> None:
        sections = {
            "connect": config._Connect,
            "network": NetworkSection,
            "defaults": config._Defaults,
            "maxima": config._Maxima,
            "user": config._Totals,
            "machine": config._Totals,
            "history": config._History,
        }
        wanted = {name: set(section.__struct_fields__) for name, section in sections.items()}
        assert {name: set(rows) for name, rows in documented().items()} == {"Top level": {"admins"}, **wanted}
        assert set(config._File.__struct_fields__) == {*sections, "admins", "users", "groups"}

    def test_the_defaults_are_the_defaults(self, tmp_path: Path) -> None:
        text = ""
        for name, rows in documented().items():
            text += f"[{name}]\n" if name != "Top level" else ""
            said = {key: default.strip("`") for key, (default, _) in rows.items() if default != "none"}
            text += "".join(f"{key} = {default}\n" for key, default in said.items())
        assert self.loaded(tmp_path, text) == config.Config()

    def test_the_examples_are_taken(self, tmp_path: Path) -> None:
        for name, rows in documented().items():
            for key, (_, example) in rows.items():
                table = "" if name == "Top level" else f"[{name}]\n"
                # Names that this machine need not have become numbers.
                text = re.sub(r'"(alice|bob|staff)"', "1000", f"{table}{key} = {example}\n")
                assert self.loaded(tmp_path, text) != config.Config(), text

    def test_the_blocks_are_taken(self, tmp_path: Path) -> None:
        blocks = [block for language, block in FENCE.findall(CONFIGURATION) if language == "toml"]
        assert len(blocks) >= 3
        for block in blocks:
            text = re.sub(r"\.(alice|staff)\]", ".1000]", block)
            assert self.loaded(tmp_path, text) != config.Config()

    def test_the_installed_file_has_every_setting_with_its_default(self) -> None:
        installed = (ROOT / "systemd" / "workerd.toml").read_text()
        shown = tomllib.loads(re.sub(r"^#([a-z_]+ = )", r"\1", installed, flags=re.MULTILINE))
        for name, rows in documented().items():
            for key, (default, _) in rows.items():
                if default != "none" and name != "Top level":
                    assert shown[name][key] == tomllib.loads(f"x = {default.strip('`')}")["x"], (name, key)

    @staticmethod
    def loaded(tmp_path: Path, text: str) -> config.Config:
        path = tmp_path / "workerd.toml"
        path.write_text(text)
        return config.load(path, required=True)


class TestOperations:
    TEXT = (ROOT / "docs" / "operations.md").read_text()

    def test_messages_are_the_programs_own(self) -> None:
        table = self.TEXT.split("## Messages in the log")[1]
        messages = re.findall(r"^\| ([^|]*`[^|]+`[^|]*) \|", table, re.MULTILINE)
        source = "\n".join(path.read_text() for path in (ROOT / "workerd").glob("*.py"))
        source = re.sub(r"\"\s*\n\s*f?\"", "", source)
        pieces = [piece.strip(" `,;:") for message in messages for piece in re.split(r"…|\bN\b|`", message)]
        missing = [piece for piece in pieces if len(piece) > 8 and piece not in source]
        assert len(messages) > 12 and set(missing) <= {"with a traceback"}

    def test_metrics_are_all_there(self) -> None:
        source = Path(prometheus.__file__).read_text()
        families = set(re.findall(r'"(worker_[a-z_]+)"', source)) - {"worker_job_"}
        families |= {f"worker_job_{name}" for name, *_ in prometheus.USAGE}
        assert families == set(re.findall(r"`(worker_[a-z_]+)[`{]", self.TEXT))


class TestHowItWorks:
    TEXT = (ROOT / "docs" / "how-it-works.md").read_text()

    def test_every_module_that_it_names_is_there(self) -> None:
        names = {name for name in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|c|h))`", self.TEXT)}
        places = (ROOT, ROOT / "workerd", ROOT / "workerd" / "init", ROOT / "workerctl")
        assert len(names) > 80
        assert not [name for name in names if not any((place / name).exists() for place in places)]

    def test_states_and_reasons_are_all_there(self) -> None:
        from workerd.job import Reason, State

        assert not [word for word in (*State, *Reason) if str(word) not in self.TEXT]


def test_the_changelog_has_this_version() -> None:
    from workerd import __version__

    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_run_what_is_here() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"repo: (\S+)", hooks)) == {"local"} and "http" not in hooks
    for entry in re.findall(r"entry: (.+)", hooks):
        for word in re.findall(r"\S+\.py\b", entry):
            assert (ROOT / word).exists(), word


def test_structs_named_in_contributing_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"`((?:workerd|workerctl|tests|docs|systemd|scripts|tools)/[\w./-]*\w/?)`", text):
        assert (ROOT / path).exists() or path == "tests/system/vm", path
    assert msgspec.structs.fields(config.Config)
