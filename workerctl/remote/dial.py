"""The far end of a link: `workerctl dial-stdio`, started by ssh as its user.

Each channel that the near end opens is a connection to workerd, a descriptor, or a job's
log. What must hold: the daemon sees the ssh user's own credentials (every connection is
made here, by this process), and when the near end is gone so is all that was its.
"""

from __future__ import annotations

import json
import os
import pwd
import sys

from workerctl import threads
from workerctl.machine import Here
from workerctl.remote import frames
from workerctl.remote.diallog import answer_log
from workerctl.remote.dialrpc import Rpc
from workerctl.remote.frames import Frame
from workerctl.remote.mux import Channel, Mux
from workerctl.spec import ENV_PASSED
from workerd import __version__

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import IO, Any


def serve(reading: IO[bytes], writing: IO[bytes]) -> None:
    """Until the near end is gone. `writing` is unbuffered."""
    writing.write(frames.MAGIC)
    mux = Mux(reading, writing, 2, lambda channel: _opened(mux, channel), dict)
    mux.post(Frame(frames.HELLO, 0, json.dumps(_hello()).encode()))
    mux.begin()
    threads.begin(_answer, mux.own)
    mux.read()


def _opened(mux: Mux, channel: Channel) -> None:
    kind = channel.params["kind"]
    if kind == "rpc":
        threads.begin(Rpc(mux, channel).serve)
    elif kind == "log":
        threads.begin(answer_log, channel)
    # A descriptor waits for the request that it rides on.


def _hello() -> dict[str, Any]:
    kept = {name: value for name, value in os.environ.items() if name in ENV_PASSED or name.startswith("LC_")}
    kept.pop("TERM", None)  # the terminal is the near end's
    return {
        "protocol": frames.PROTOCOL,
        "oldest": frames.OLDEST,
        "version": __version__,
        "home": os.path.realpath(os.path.expanduser("~")),
        "umask": Here().umask(),
        "env": {name: value for name, value in kept.items() if (name + value).isprintable()},
    }


def _answer(own: Channel) -> None:
    """What is asked about this machine."""
    while (frame := own.inbox.get()).kind != frames.CLOSE:
        if frame.kind != frames.ASK:
            continue  # HELLO
        (number,) = frames.WORD.unpack_from(frame.payload)
        question = json.loads(frame.payload[frames.WORD.size :])
        if question["what"] == "user":
            reply(own, number, frames.JSON, json.dumps(_user_name(question["uid"])).encode())
            continue
        try:
            path = os.path.realpath(os.path.join(os.path.expanduser("~"), question["path"]))
            reply(own, number, frames.JSON, json.dumps(path).encode())
        except OSError as error:
            told = {"errno": error.errno, "message": error.strerror}
            reply(own, number, frames.ERROR, json.dumps(told).encode())


def reply(channel: Channel, number: int, kind: int, content: bytes) -> None:
    channel.post(frames.ANSWER, frames.ANSWERED.pack(number, kind) + content)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def main() -> None:
    """On our standard input and output, of which nothing else may make use."""
    os.environ.pop("WORKER_HOST", None)  # it is here
    reading, writing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    serve(os.fdopen(reading, "rb", buffering=1 << 16), os.fdopen(writing, "wb", buffering=0))
    sys.stderr.flush()
    os._exit(0)  # threads may wait for what nobody answers any more
