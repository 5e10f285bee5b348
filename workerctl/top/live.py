"""The loop of `top`: samples by the clock, keys as they come, orders to the daemon.

A sample is asked for and taken when it comes, so that keys are answered at once while the
daemon reads the figures of many jobs.

Orders go over a connection of their own and are not waited for, so that a stop with a
long grace holds up nothing. A daemon that restarts is tried again with every sample.
"""

from __future__ import annotations

import os
import select
import time

from workerctl import stdio
from workerctl.accounts import user_name
from workerctl.listing import ask_jobs, take_jobs
from workerctl.rates import Rates
from workerctl.rawterm import RawTerminal
from workerctl.top import host
from workerctl.top.keys import keys_of
from workerctl.top.page import FOOT, HEAD, page
from workerctl.top.screen import Screen
from workerctl.top.view import View
from workerctl.wire import Connection
from workerd.errors import ConnectionFailed, Unavailable, WorkerError

TYPE_CHECKING = False  # as typing has it, without its 9 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from workerctl.top.view import Row

METHODS = {"stop": "job.stop", "kill": "job.kill"}
DONE = {"job.stop": "stopped", "job.kill": "killed", "job.pause": "paused", "job.resume": "goes on"}


class Top:
    """`matches` says which jobs are meant at all; `local`: workerd is on this machine."""

    def __init__(
        self, connection: Connection, params: dict[str, Any], matches: Callable[[dict[str, Any]], bool],
        interval: float, *, local: bool,
    ) -> None:  # fmt: skip
        self._connection: Connection = connection
        self._params, self._matches = params, matches
        self._interval = interval
        self._local = local
        self._rates = Rates()
        self._rows: list[Row] = []
        self._orders: Connection | None = None
        self._asked: dict[int, tuple[str, str]] = {}
        self._lost = False
        self._sampling: int | None = None
        """the number of the request for a sample that is under way"""
        self.view = View()

    def run(self, terminal: RawTerminal, screen: Screen, show_output: Callable[[str], None]) -> None:
        """Until `quit`. `show_output` has the terminal for itself while it is called."""
        due = 0.0
        while True:
            if time.monotonic() >= due and self._sampling is None:
                self._ask_sample()
                due = time.monotonic() + self._interval
            self.draw(terminal, screen)
            # While a sample is under way it is that which is waited for.
            left = due - time.monotonic() if self._sampling is None else self._interval
            ready = self._poll(terminal, max(0.0, left))
            if terminal.wakeup in ready:
                terminal.woken()
            if terminal.resized:
                terminal.resized = False
                screen.forget()
            if self._sampling is not None and self._connection.fileno() in ready:
                self._take_sample()
            if self._orders is not None and self._orders.fileno() in ready:
                self._hear()
            for key in keys_of(os.read(stdio.STDIN, 4096)) if stdio.STDIN in ready else ():
                action = self.view.key(key, terminal.size()["rows"] - HEAD - FOOT)
                if action == "quit":
                    return
                if action == "sample":
                    due = 0.0
                elif action == "output" and self.view.target:
                    show_output(self.view.target)
                    screen.forget()
                elif action == "redraw":
                    screen.forget()
                else:
                    self._do(action)

    def sample(self) -> None:
        """A sample now, the one under way if there is one."""
        if self._sampling is None:
            self._ask_sample()
        self._take_sample()

    def _ask_sample(self) -> None:
        try:
            if self._lost:
                self._connection.reconnect()
            self._sampling = ask_jobs(self._connection, **self._params)
        except (ConnectionFailed, Unavailable) as error:
            self._lose(error)

    def _lose(self, error: WorkerError) -> None:
        self._sampling, self._lost, self.view.message = None, True, f"{error}; trying again"

    def _take_sample(self) -> None:
        if self._sampling is None:
            return
        try:
            found = take_jobs(self._connection, self._sampling, **self._params)
        except (ConnectionFailed, Unavailable) as error:
            self._lose(error)
            return
        self._sampling = None
        jobs = [job for job in found if self._matches(job)]
        if self._lost:
            self._lost, self.view.message = False, ""
        rows = self._rates.feed(jobs, time.monotonic())
        self._rows = [{**row, "job": job, "user": user_name(job["uid"])} for row, job in zip(rows, jobs, strict=True)]
        self.view.feed(self._rows)

    def draw(self, terminal: RawTerminal, screen: Screen) -> None:
        size = terminal.size()
        lines = page(self.view, self._machine(), size["columns"], size["rows"], time.time_ns() // 1000)
        screen.show(lines, size["columns"])

    def _machine(self) -> dict[str, Any]:
        clock = {"clock": time.strftime("%H:%M:%S")}
        if not self._local:
            return clock
        return {
            **clock, "load": host.load(), "memory": host.memory(), "pressure": host.pressure(), "cpus": host.cpus()
        }  # fmt: skip

    def _poll(self, terminal: RawTerminal, seconds: float) -> set[int]:
        poll = select.poll()
        sampling = [self._connection.fileno()] if self._sampling is not None else []
        orders = [self._orders.fileno()] if self._orders else []
        for fd in (stdio.STDIN, terminal.wakeup, *sampling, *orders):
            poll.register(fd, select.POLLIN)
        return {fd for fd, _ in poll.poll(seconds * 1000)}

    def _do(self, action: str | None) -> None:
        if action == "resort":
            self.view.feed(self._rows)
        elif action in METHODS and self.view.target:
            self._order(METHODS[action], self.view.target)
        elif action == "pause" and self.view.selected:
            row = self.view.rows[self.view.place]
            self._order("job.resume" if row["state"] == "paused" else "job.pause", row["id"])

    def _order(self, method: str, job_id: str) -> None:
        try:
            if self._orders is None:
                self._orders = Connection()
            number = self._orders.ask(method, {"id": job_id})
        except WorkerError as error:
            self._drop(error)
            return
        self._asked[number] = (method, job_id)
        self.view.message = f"{method.partition('.')[2]} {job_id} …"

    def _hear(self) -> None:
        """One answer of an order; they come as they are done."""
        assert self._orders is not None
        from workerctl import plainjson

        try:
            answer = plainjson.loads(self._orders.receive())
        except WorkerError as error:
            self._drop(error)
            return
        method, job_id = self._asked.pop(answer.get("id"), ("", ""))
        failure = answer.get("error")
        self.view.message = str(failure["message"]) if failure else f"job {job_id} {DONE.get(method, 'done')}"
        self.sample()

    def _drop(self, error: WorkerError) -> None:
        if self._orders is not None:
            self._orders.close()
        self._orders, self._asked, self.view.message = None, {}, str(error)
