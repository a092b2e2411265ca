"""A TCP proxy before an S3 server that, for a while, loses connections, answers late, refuses and loses answers."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time

SLOW_DOWN = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FaultyProxy:
    """Forwards to `upstream` and back; for `until` some time, every connection draws one of `FAULTS`.

    Attributes:
        address: host:port where it listens.
        faults: connections that got a fault so far.
    """

    FAULTS = ("drop", "late", "refuse", "lose the answer", "none")

    def __init__(self, upstream: tuple[str, int], *, seed: int) -> None:
        self._upstream, self._random = upstream, random.Random(seed)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._server.getsockname())
        self.faults = 0
        self._until = 0.0
        self._live: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def fail_for(self, seconds: float) -> None:
        """Lose all connections now, and give those of the next seconds their faults."""
        self._until = time.monotonic() + seconds
        for connection in list(self._live):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening."""
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        fault = self._random.choice(self.FAULTS) if time.monotonic() < self._until else "none"
        self.faults += fault != "none"
        self._live.add(client)
        with contextlib.suppress(OSError), client:
            if fault == "drop":
                return
            if fault == "late":
                time.sleep(2)
            if fault == "refuse":
                client.recv(1 << 16)
                client.sendall(SLOW_DOWN)
                return
            with socket.create_connection(self._upstream) as server:
                self._live.add(server)
                back = threading.Thread(
                    target=_pump, args=(server, client), kwargs={"lose": fault == "lose the answer"}, daemon=True
                )
                back.start()
                _pump(client, server)
                back.join()
                self._live.discard(server)
        self._live.discard(client)


def _pump(source: socket.socket, target: socket.socket, *, lose: bool = False) -> None:
    """Forward bytes until the source ends; with `lose`, close the target at the first byte."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if lose:
                break
            target.sendall(data)
    for end in (target, source) if lose else (target,):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR if lose else socket.SHUT_WR)
