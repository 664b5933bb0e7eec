"""Orders to a running helper process: one JSON object a line over a Unix socket, each answered by one."""

import json
import os
import socket
import time


class Server:
    """The helper's end. Whoever waits on `files()` calls `serve` for those that are ready."""

    def __init__(self, path, answer):
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        # Nobody connects before it listens.
        self._listener.bind(path + ".new")
        self._listener.listen(8)
        os.rename(path + ".new", path)
        self._clients = {}

    def files(self):
        return [self._listener, *self._clients]

    def serve(self, ready):
        """Returns what is to be waited for anew, and what no longer."""
        if ready is self._listener:
            client, _ = ready.accept()
            self._clients[client] = b""
            return client, None
        data = ready.recv(1 << 16)
        if not data:
            del self._clients[ready]
            return None, ready
        *lines, self._clients[ready] = (self._clients[ready] + data).split(b"\n")
        for line in lines:
            try:
                reply = {"ok": self._answer(json.loads(line))}
            except Exception as error:  # told to whoever asked
                reply = {"error": repr(error)}
            ready.sendall(json.dumps(reply).encode() + b"\n")
        return None, None


class Client:
    """The harness' end."""

    def __init__(self, path, process):
        deadline = time.monotonic() + 20
        while True:
            try:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{process.args}: no answer at {path}") from None
                time.sleep(0.01)
        self._lines = self._socket.makefile("rb")

    def __call__(self, **order):
        self._socket.sendall(json.dumps(order).encode() + b"\n")
        line = self._lines.readline()
        if not line:
            raise RuntimeError("the helper process is gone")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{order}: {reply['error']}")
        return reply["ok"]
