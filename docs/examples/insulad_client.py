#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A client of insulad with Python's standard library alone: insulad_client.py SOCKET METHOD ['{"id": "x"}']"""
import json
import socket
import sys


class Insulad:
    def __init__(self, path="/run/insula/insulad.sock"):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)
        self.data, self.fds, self.ids, self.events = b"", [], 0, []

    def line(self):
        while b"\n" not in self.data:
            more, fds, _, _ = socket.recv_fds(self.sock, 65536, 4)
            if not more:
                raise ConnectionError("insulad has closed the connection")
            self.data, self.fds = self.data + more, self.fds + fds
        line, self.data = self.data.split(b"\n", 1)
        return json.loads(line)

    def call(self, method, fds=(), **params):
        self.ids += 1
        text = json.dumps({"jsonrpc": "2.0", "id": self.ids, "method": method, "params": params}) + "\n"
        socket.send_fds(self.sock, [text.encode()], fds) if fds else self.sock.sendall(text.encode())
        while (answer := self.line()).get("id") != self.ids:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        print("usage: insulad_client.py SOCKET METHOD ['{\"id\": \"x\"}']", file=sys.stderr)
        sys.exit(2)
    print(json.dumps(Insulad(sys.argv[1]).call(sys.argv[2], **json.loads((sys.argv[3:] or ["{}"])[0]))))
