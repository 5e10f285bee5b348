"""What may stand where a table says ID, PATH, SIG …: by the name that help gives it."""

from __future__ import annotations

from workerctl.completing import DIRECTORIES, FILES, WORDS, Answer
from workerctl.filters import KEYS, REASONS, STATES
from workerctl.verbs import load

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from workerctl.options import Verb

    Found = Iterable[tuple[str, str]]

NETS = {"none": "loopback only", "bridge": "an address of its own", "host": "the machine's network; for admins"}
ENDINGS = {"ok": "when it exited with 0", "failed": "when it ended in any other way", "any": "however it ended"}
ACTIONS = {"stop": "stop the job", "pause": "freeze it"}
RESTARTS = {"never": "", "on-failure": "unless it exited with 0", "always": "however it ended"}
CAPABILITIES = (
    "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH "
    "FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN "
    "NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT "
    "SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG "
    "WAKE_ALARM"
).split()


def of_metavar(metavar: str, word: str, verb: Verb) -> Answer:
    """What may stand for `metavar` where `word` is written so far."""
    if metavar in FILE_LIKE:
        return _path(FILE_LIKE[metavar], word)
    if metavar in SOURCES:
        return Answer(WORDS, "", [pair for pair in SOURCES[metavar](word, verb) if pair[0].startswith(word)])
    if "|" in metavar and metavar not in FREE:
        return Answer(WORDS, "", [(one, "") for one in metavar.split("|") if one.startswith(word)])
    return Answer(WORDS)


FILE_LIKE = {
    "PATH": FILES,
    "FILE": FILES,
    "DIR": DIRECTORIES,
    "PATH[:SIZE]": DIRECTORIES,
    "SRC:DST[:ro]": FILES,
    "[DISK:]RATE": DIRECTORIES,
}
FREE = {"ADDRESS", "CURSOR", "KEYS", "NAME", "NAME=AMOUNT", "SIZE", "N", "LIST", "HOST:JOB[/udp]", "TIME", "REGEX"}
"""of which nothing is known"""


def _path(kind: str, word: str) -> Answer:
    """The part at the cursor of paths with colons between."""
    before, colon, _ = word.rpartition(":")
    return Answer(kind, before + colon)


def _verbs(word: str, verb: Verb) -> Found:
    from workerctl.topics import TOPICS
    from workerctl.verbs import VERBS

    return [*VERBS.items(), *((name, what) for name, (what, _) in TOPICS.items())]


def _signals(word: str, verb: Verb) -> Found:
    import signal

    prefix = "SIG" if word.startswith("SIG") else ""
    return [
        (prefix + one.name.removeprefix("SIG"), (signal.strsignal(one) or "").lower())
        for one in signal.Signals
        if one.name not in ("SIGRTMIN", "SIGRTMAX")
    ]


def _jobs(word: str, verb: Verb) -> Found:
    from workerctl.completing.jobs import names

    return names(verb.name, word)


def _awaited(word: str, verb: Verb) -> Found:
    from workerctl.completing.jobs import names

    job, colon, _ = word.partition(":")
    return [(f"{job}:{how}", what) for how, what in ENDINGS.items()] if colon else names(verb.name, word)


def _labels(word: str, verb: Verb) -> Found:
    from workerctl.completing.jobs import labels

    return labels()


def _filters(word: str, verb: Verb) -> Found:
    from workerctl import eventfilter
    from workerctl.completing import jobs

    key, equals, _ = word.partition("=")
    if not equals:
        return [(f"{one}=", "") for one in (eventfilter.KEYS if verb.name == "events" else KEYS)]
    values: dict[str, Callable[[], Found]] = {
        "kind": lambda: [(one, "") for one in eventfilter.KINDS],
        "state": lambda: [(one, "") for one in STATES],
        "reason": lambda: [(one, "") for one in REASONS],
        "user": lambda: _users("", verb),
        "label": jobs.labels,
        "name": jobs.given_names,
    }
    return [(f"{key}={value}", what) for value, what in values.get(key, lambda: [])()]


def _users(word: str, verb: Verb) -> Found:
    user, colon, _ = word.partition(":")
    if colon:
        import grp

        return [(f"{user}:{group.gr_name}", "") for group in grp.getgrall()]
    import pwd

    from workerctl.escape import visible

    return [(account.pw_name, visible(account.pw_gecos.partition(",")[0])) for account in pwd.getpwall()]


def _hosts(word: str, verb: Verb) -> Found:
    """As the user's ssh configuration names them."""
    import os

    try:
        with open(os.path.expanduser("~/.ssh/config"), encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return [("ssh://", "")]
    names = [name for words in lines if words and words[0].lower() == "host" for name in words[1:]]
    return [("ssh://" + name, "") for name in names if not any(sign in name for sign in "*?!")] or [("ssh://", "")]


def _variables(word: str, verb: Verb) -> Found:
    import os

    return [] if "=" in word else [(name, "your own") for name in sorted(os.environ)]


def _fields(word: str, verb: Verb) -> Found:
    """After the last open brace: a field of the verb's own, or of a job's, or what is made for people."""
    before, brace, field = word.rpartition("{")
    if "}" in field:
        return []
    lead = before + (brace or "{")
    if verb.name in ("info", "version"):
        return []
    return [(f"{lead}{name}}}", "") for name in _own_fields(verb) or _fields_of_jobs(verb, field)]


def _own_fields(verb: Verb) -> Iterable[str]:
    """Of what a verb shows that shows no jobs."""
    if verb.name == "events":
        from workerctl.eventlines import FIELDS

        return FIELDS
    own: Iterable[str] = getattr(load(verb.name), "FIELDS", ())
    return own


def _fields_of_jobs(verb: Verb, field: str) -> Iterable[str]:
    from workerctl.jobfields import DERIVED
    from workerctl.verbs.run import STARTED

    more = STARTED if verb.name == "run" else ()  # without --wait it is these
    return sorted({*DERIVED, *more, *_job_fields(field)})


def _job_fields(field: str) -> Iterable[str]:
    import msgspec

    from workerd.job import Job, JobSpec, Limits, Usage

    inner: dict[str, type[msgspec.Struct]] = {
        "spec": JobSpec,
        "spec.limits": Limits,
        "usage": Usage,
        "effective": Limits,
    }
    way, dot, _ = field.rpartition(".")
    if dot:
        found = inner.get(way)
        return [f"{way}.{one.name}" for one in msgspec.structs.fields(found)] if found else []
    return [one.name for one in msgspec.structs.fields(Job)]


def _programs(word: str, verb: Verb) -> Found:
    from workerctl.equivalent import PROGRAMS

    return [(name, "") for name in PROGRAMS]


def _of(table: dict[str, str]) -> Callable[[str, Verb], Found]:
    return lambda word, verb: table.items()


SOURCES: dict[str, Callable[[str, Verb], Found]] = {
    "ACTION": _of(ACTIONS),
    "CAP": lambda word, verb: [(one, "") for one in CAPABILITIES],
    "HOST": _hosts,
    "ID": _jobs,
    "ID[:HOW]": _awaited,
    "KEY=VALUE": _filters,
    "KEY[=VALUE]": _labels,
    "KIND": _of(NETS),
    "NAME[=VALUE]": _variables,
    "PROGRAM": _programs,
    "REASON": lambda word, verb: [(one, "") for one in REASONS],
    "SIG": _signals,
    "TEMPLATE": _fields,
    "USER[:GROUP]": _users,
    "VERB|TOPIC": _verbs,
    "WHEN[:N]": _of(RESTARTS),
}
