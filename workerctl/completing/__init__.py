"""What may stand at the cursor of a command line: asked by the shells' completion scripts.

A script hands over the words after `workerctl` as far as the cursor and gets a line that
says of which kind the answer is, then the candidates, each with a tab and what it is:

    words               the candidates, whole words
    files PREFIX        what the shell knows of files; PREFIX stands before the path
    directories PREFIX  the same of directories
    command N           the words from number N on are another command's line

Made from the verbs' own tables. What must hold: nothing here fails, and nothing waits for
longer than the time limit of `jobs`.
"""

from __future__ import annotations

from workerctl.options import COMMON, Option, Verb
from workerctl.verbs import ALIASES, VERBS, load

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WORDS, FILES, DIRECTORIES, COMMAND = "words", "files", "directories", "command"


class Answer:
    """`candidates` are (word, what it is); `place` is PREFIX or N."""

    __slots__ = ("candidates", "kind", "place")

    def __init__(self, kind: str, place: str = "", candidates: Iterable[tuple[str, str]] = ()) -> None:
        self.kind = kind
        self.place = place
        self.candidates = list(candidates)

    def text(self) -> str:
        lines = [f"{self.kind}\t{self.place}", *(f"{word}\t{what}" for word, what in self.candidates)]
        return "".join(f"{line}\n" for line in lines)


def complete(words: Sequence[str]) -> Answer:
    """The answer for these words, of which the last is the one at the cursor."""
    place = _verb_place(words)
    if place < 0:
        return _value(_common(words[-2]), "", words[-1], ALL_VERBS)
    name = ALIASES.get(words[place], words[place])
    if place == len(words) - 1:
        return _verbs(words[place])
    return _in_verb(load(name).VERB, words, place + 1) if name in VERBS else Answer(WORDS)


ALL_VERBS = Verb("", "", "", groups={}, examples=[])
"""stands for no verb in particular"""


def _common(flag: str) -> Option:
    return next(option for option in COMMON if flag in option.flags)


def _verb_place(words: Sequence[str]) -> int:
    """Where the verb is (to be); -1 where the value of an option before it is at the cursor."""
    takers = {flag for option in COMMON if option.metavar for flag in option.flags}
    place, last = 0, len(words) - 1
    while place < last and words[place].startswith("-"):
        place += 2 if words[place] in takers else 1
    return place if place <= last else -1


def _verbs(word: str) -> Answer:
    if word.startswith("-"):
        flags = [option for option in COMMON if word.partition("=")[0] in option.flags and option.metavar]
        if "=" in word and flags:
            return _value(flags[0], word.partition("=")[0] + "=", word.partition("=")[2], ALL_VERBS)
        more = [Option("-V --version", "show the versions")]
        return Answer(WORDS, "", _flags([*COMMON, *more], word))
    return Answer(WORDS, "", [(name, what) for name, what in VERBS.items() if name.startswith(word)])


def _in_verb(verb: Verb, words: Sequence[str], place: int) -> Answer:
    """As options.parse reads the words before the one at the cursor."""
    options = [option for group in (*verb.groups.values(), COMMON) for option in group]
    known = {flag: option for option in options for flag in option.flags}
    given: list[Option] = []
    beside: list[int] = []
    """the places of the words that are no options"""
    ended, taking, last = False, None, len(words) - 1
    for index in range(place, last):
        word = words[index]
        if taking is not None:
            taking = None
        elif ended or word == "-" or not word.startswith("-"):
            beside.append(index)
            ended = ended or verb.options_first
        elif word == "--":
            ended = True
        else:
            option = _option_of(known, word)
            given += [option] if option else []
            taking = option if option and option.metavar and _is_bare(word, option) else None
    if taking is not None:
        return _value(taking, "", words[last], verb)
    if not ended and words[last].startswith("-"):
        return _option(known, [option for option in options if option.many or option not in given], words[last], verb)
    return _argument(verb, words, [*beside, last])


def _option_of(known: dict[str, Option], word: str) -> Option | None:
    if word.startswith("--"):
        return known.get(word.partition("=")[0])
    return next((known[f"-{c}"] for c in word[1:] if f"-{c}" in known and known[f"-{c}"].metavar), known.get(word[:2]))


def _is_bare(word: str, option: Option) -> bool:
    """Whether the option's value is the next word."""
    if word.startswith("--"):
        return "=" not in word
    return any(flag == f"-{word[-1]}" for flag in option.flags)


def _option(known: dict[str, Option], options: list[Option], word: str, verb: Verb) -> Answer:
    flag, equals, value = word.partition("=")
    if equals and word.startswith("--"):
        option = known.get(flag)
        return _value(option, f"{flag}=", value, verb) if option and option.metavar else Answer(WORDS)
    if not word.startswith("--") and len(word) > 2 and (option := known.get(word[:2])) and option.metavar:
        return _value(option, word[:2], word[2:], verb)
    return Answer(WORDS, "", _flags(options, word))


def _flags(options: Iterable[Option], word: str) -> Iterable[tuple[str, str]]:
    return [(flag, option.help) for option in options for flag in option.flags if flag.startswith(word)]


def _argument(verb: Verb, words: Sequence[str], places: Sequence[int]) -> Answer:
    """The word at the cursor is the last of those at `places`, none of them an option."""
    wanted = [part for part in verb.arguments.split() if part not in ("[OPTIONS]", "OPTIONS", "[--]")]
    names = [part.strip("[]…") for part in wanted]
    if "COMMAND" in names and len(places) > (first := names.index("COMMAND")):
        return Answer(COMMAND, str(places[first]))
    nth = len(places) - 1
    if nth >= len(names):
        if not wanted or not wanted[-1].strip("[]").endswith("…"):
            return Answer(WORDS)
        nth = len(names) - 1
    from workerctl.completing.values import of_metavar

    answer = of_metavar(names[nth], words[-1], verb)
    before = {words[place] for place in places[:-1]}
    answer.candidates = [(word, what) for word, what in answer.candidates if word not in before]
    return answer


def _value(option: Option | None, prefix: str, value: str, verb: Verb) -> Answer:
    if option is None:
        return Answer(WORDS)
    from workerctl.completing.values import of_metavar

    answer = of_metavar(option.metavar, value, verb)
    answer.place = prefix + answer.place
    answer.candidates = [(prefix + word, what) for word, what in answer.candidates]
    return answer
