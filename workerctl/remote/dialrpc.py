"""The far end's side of a connection to workerd: lines go through as they are, and the
descriptors that ride on them come from channels and become channels."""

from __future__ import annotations

import json
import socket

from workerctl import threads
from workerctl.remote import dialfds, frames
from workerctl.remote.dialfds import Output
from workerctl.remote.mux import Channel, Closed, Mux
from workerctl.wire import connect, socket_path
from workerd import fdpass
from workerd.errors import InvalidRequest, WorkerError

PIECE = 1 << 16
MAX_FDS = 16
"""as workerd.protocol has it; a test holds them equal"""


class Rpc:
    def __init__(self, mux: Mux, channel: Channel) -> None:
        self._mux = mux
        self._channel = channel
        self._outputs: list[Output] = []
        """what the command of the request under way writes to"""

    def serve(self) -> None:
        try:
            sock = socket.socket(fileno=connect(socket_path(self._channel.params["socket"])).detach())
        except WorkerError as error:
            self._channel.close({"kind": error.kind, "message": str(error)})
            return
        threads.begin(self._bring, sock.dup())
        try:
            self._pass_on(sock)
        except OSError:
            pass  # the daemon hung up; what it said before that is still brought
        finally:
            if self._channel.closed is not None:
                self._shut(sock)
            sock.close()

    def _pass_on(self, sock: socket.socket) -> None:
        """From there to the daemon. Raises OSError."""
        fds: list[int] = []
        while (frame := self._channel.inbox.get()).kind in (frames.DATA, frames.FDS):
            if frame.kind == frames.FDS:
                fds = self._given(json.loads(frame.payload))
                continue
            data = frame.payload
            try:
                if fds:
                    data = data[fdpass.send(sock, data, fds) :]
                sock.sendall(data, socket.MSG_NOSIGNAL)
            finally:
                fdpass.close_all(fds)
                fds = []
            self._channel.grant(len(frame.payload))

    def _given(self, numbers: list[int]) -> list[int]:
        fds: list[int] = []
        for number in numbers:
            channel = self._mux.channels.get(number)
            if channel is None:  # closed over there meanwhile
                fdpass.close_all(fds)
                raise ConnectionResetError
            if channel.params["reads"]:
                fds.append(dialfds.give_input(channel))
            else:
                output = Output(channel)
                self._outputs.append(output)
                fds.append(output.writing)
        return fds

    def _bring(self, sock: socket.socket) -> None:
        """From the daemon to there."""
        try:
            while True:
                data, fds = fdpass.receive(sock, PIECE, MAX_FDS)
                if not data:
                    break
                if fds:
                    self._announce(fds)
                self._channel.send(data)
        except (OSError, InvalidRequest, Closed):
            pass  # the same end
        sock.close()
        self._channel.close()

    def _announce(self, fds: list[int]) -> None:
        outputs, self._outputs = self._outputs, []
        channels = dialfds.take(self._mux, fds, outputs)
        self._channel.post(frames.FDS, json.dumps([channel.number for channel in channels]).encode())

    def _shut(self, sock: socket.socket) -> None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the daemon did
