"""The command line as tables: what a verb takes, and reading it.

Not argparse: importing it and filling it with the options of `run` costs as much
as starting Python does, and it cannot stop at the first positional, group its
help or say "did you mean". Only this module splits words into options; what a
value means is its verb's to say.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class UsageError(Exception):
    """The command line itself is wrong; `str()` says what to write instead."""


class Option:
    """One option. Without `metavar` it is a switch; `many` may be given again and again."""

    __slots__ = ("flags", "help", "many", "metavar")

    def __init__(self, flags: str, help: str, metavar: str = "", *, many: bool = False) -> None:
        self.flags = flags.split()
        self.help = help
        self.metavar = metavar
        self.many = many

    @property
    def name(self) -> str:
        """The first long flag without its dashes: the key into Args."""
        return next(flag for flag in self.flags if flag.startswith("--"))[2:]


class Verb:
    """One verb: how it is called, explained and read. A table, filled once, at import."""

    __slots__ = ("arguments", "examples", "groups", "name", "options_first", "summary", "text")

    def __init__(
        self,
        name: str,
        arguments: str,
        summary: str,
        *,
        groups: dict[str, list[Option]],
        examples: list[tuple[str, str]],
        text: str = "",
        options_first: bool = False,
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.summary = summary
        self.groups = groups
        self.examples = examples
        self.text = text
        self.options_first = options_first
        """Whether the first word that is no option ends the options (as in `run ls -l`)."""


COMMON = [
    Option("-H --host", "the machine: ssh://[USER@]HOST[:PORT] [$WORKER_HOST, or this one]", "HOST"),
    Option("--cluster", "many machines, through Dask's scheduler: tls://HOST:PORT [$WORKER_CLUSTER]", "ADDRESS"),
    Option("--insecure", "with --cluster: allow plain tcp:// beyond this machine"),
    Option("--socket", "the daemon's socket [$WORKERD_SOCKET or /run/workerd/workerd.sock]", "PATH"),
    Option("-h --help", "show this help"),
]


class Args:
    """What was given: switches, values by option name, and the words beside them."""

    __slots__ = ("given", "order", "words")

    def __init__(self) -> None:
        self.given: dict[str, list[str]] = {}
        self.order: list[tuple[str, str]] = []
        """every option with its value, as they came"""
        self.words: list[str] = []

    def add(self, option: Option, value: str = "") -> None:
        self.order.append((option.name, value))
        if option.many:
            self.given.setdefault(option.name, []).append(value)
        else:
            self.given[option.name] = [value]

    def has(self, name: str) -> bool:
        return name in self.given

    def text(self, name: str) -> str | None:
        """The value of an option; the last one where it was given twice."""
        values = self.given.get(name)
        return values[-1] if values else None

    def texts(self, name: str) -> list[str]:
        return self.given.get(name, [])


def parse(verb: Verb, words: Sequence[str]) -> Args:
    """Raises UsageError, which names the option and what would be right."""
    known = {flag: option for group in (*verb.groups.values(), COMMON) for option in group for flag in option.flags}
    args, rest = Args(), list(reversed(words))
    while rest:
        word = rest.pop()
        if word == "--":
            args.words += reversed(rest)
            break
        if word == "-" or not word.startswith("-"):
            args.words.append(word)
            if verb.options_first:
                args.words += reversed(rest)
                break
        elif word.startswith("--"):
            _long(verb, known, args, word, rest)
        else:
            _short(verb, known, args, word, rest)
    return args


def _long(verb: Verb, known: dict[str, Option], args: Args, word: str, rest: list[str]) -> None:
    flag, equals, value = word.partition("=")
    option = known.get(flag)
    if option is None:
        raise UsageError(_unknown(verb, flag, known))
    if not option.metavar:
        if equals:
            raise UsageError(f"{flag} takes no value")
        args.add(option)
    else:
        _take(args, option, flag, value if equals else None, rest)


def _short(verb: Verb, known: dict[str, Option], args: Args, word: str, rest: list[str]) -> None:
    """-f, -fa (two switches), -m 256M, -m256M, -m=256M."""
    for place in range(1, len(word)):
        flag = "-" + word[place]
        option = known.get(flag)
        if option is None:
            raise UsageError(_unknown(verb, flag if place > 1 or len(word) == 2 else word, known))
        if option.metavar:
            value = word[place + 1 :].removeprefix("=")
            _take(args, option, flag, value or None, rest)
            return
        args.add(option)


def _take(args: Args, option: Option, flag: str, value: str | None, rest: list[str]) -> None:
    if value is None:
        if not rest:
            raise UsageError(f"{flag} needs a value: {flag} {option.metavar}")
        value = rest.pop()
    args.add(option, value)


def _unknown(verb: Verb, flag: str, known: Iterable[str]) -> str:
    near = did_you_mean(flag, known)
    return f"{verb.name} has no option {flag!r}{near or f'; see: workerctl help {verb.name}'}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or nothing where no known word is near."""
    from difflib import get_close_matches

    bare = {name.lstrip("-"): name for name in known if len(name.lstrip("-")) > 1}
    near = get_close_matches(word.lstrip("-"), bare, n=1, cutoff=0.6)
    return f"; did you mean {bare[near[0]]}?" if near else ""
