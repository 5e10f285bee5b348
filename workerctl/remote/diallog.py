"""The far end's side of a log: the job's log, opened here, asked from there."""

from __future__ import annotations

import json

from workerctl.remote import frames
from workerctl.remote.mux import Channel
from workerctl.wire import Connection
from workerd.errors import WorkerError
from workerd.output import HEADER, MAGIC, Log

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from typing import Any


def answer_log(channel: Channel) -> None:
    """Until the channel is closed."""
    try:
        with Connection(channel.params["socket"]) as connection:
            job_id, log = connection.find_log(channel.params["id"])
        with log:
            while (frame := channel.inbox.get()).kind == frames.ASK:
                (number,) = frames.WORD.unpack_from(frame.payload)
                kind, place, content = answer(job_id, log, json.loads(frame.payload[frames.WORD.size :]))
                channel.post(frames.ANSWER, frames.ANSWERED.pack(number, kind) + place, content)
    except WorkerError as error:
        channel.close({"kind": error.kind, "message": str(error)})
    except OSError as error:
        channel.close({"kind": "error", "message": f"the output cannot be read: {error.strerror}"})


def answer(job_id: str, log: Log, question: dict[str, Any]) -> tuple[int, bytes, bytes]:
    """(how it is meant, what stands before it, the answer). Raises WorkerError where the
    log is damaged, OSError."""
    what = question["what"]
    if what == "read":
        begin, data = log.read(question["offset"], min(question["length"], frames.MOST_PAYLOAD // 2))
        return frames.BYTES, frames.BLOCK.pack(begin), data
    if what == "block":
        block, after, more = log.block(question["number"])
        return frames.BYTES, frames.BLOCK.pack(after) + bytes([more]), block
    if what == "header":
        header = log.header()
        flags = int(header.complete)
        return frames.BYTES, b"", HEADER.pack(MAGIC, header.kept_from, header.first_record, header.lost, flags)
    found: object
    if what == "id":
        found = job_id
    elif what == "extent":
        now = log.extent()
        found = {"start": now.start, "end": now.end, "lost": now.lost, "complete": now.complete}
    elif what == "find":
        found = log.find(question["offset"])
    else:
        found = log.offset_at(question["time"])
    return frames.JSON, b"", json.dumps(found).encode()
