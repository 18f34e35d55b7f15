#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""A client of the container runtime interface of Kubernetes (CRI v1), as small as a test needs it.

Messages are dicts {field number: value}: numbers, bytes, strings, dicts for messages, lists for repeated fields. The numbers are those of
k8s.io/cri-api/pkg/apis/runtime/v1/api.proto.
"""
import struct

import grpc
import websocket

STDIN, STDOUT, STDERR, ERROR = 0, 1, 2, 3  # channels of exec and attach (v4.channel.k8s.io)
RUNNING, EXITED = 1, 2                     # ContainerState


def varint(n):
    out = b""
    n &= (1 << 64) - 1
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def encode(message):
    out = b""
    for number, value in message.items():
        for v in value if isinstance(value, list) else [value]:
            if isinstance(v, (bool, int)):
                out += varint(number << 3) + varint(int(v))
                continue
            v = encode(v) if isinstance(v, dict) else v.encode() if isinstance(v, str) else v
            out += varint(number << 3 | 2) + varint(len(v)) + v
    return out


def decode(data):
    """{number: the values in their order}; a message within stays bytes."""
    at, out = 0, {}

    def number():
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at += 1
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n

    while at < len(data):
        key = number()
        if key & 7 == 0:
            value = number()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or number()
            value, at = data[at:at + size], at + size
        out.setdefault(key >> 3, []).append(value)
    return out


def dig(data, *path):
    """The last field of each number on the way; of one that is absent, 0 or b""."""
    for number in path:
        data = decode(data).get(number, [b""])[-1]
    return data


class Cri:
    def __init__(self, path):
        self.channel = grpc.insecure_channel("unix://" + path)

    def call(self, method, message=None, service="RuntimeService", timeout=120):
        rpc = self.channel.unary_unary("/runtime.v1.%s/%s" % (service, method))
        return rpc(encode(message or {}), timeout=timeout)

    def sandbox(self, config, handler):
        return dig(self.call("RunPodSandbox", {1: config, 2: handler}), 1).decode()

    def address(self, pod):
        return dig(self.call("PodSandboxStatus", {1: pod}), 1, 5, 1).decode()

    def create(self, pod, pod_config, config):
        return dig(self.call("CreateContainer", {1: pod, 2: config, 3: pod_config}), 1).decode()

    def status(self, container):
        """(state, exit code)"""
        s = decode(dig(self.call("ContainerStatus", {1: container}), 1))
        return s.get(3, [0])[-1], s.get(7, [0])[-1]

    def exec_sync(self, container, *argv):
        r = decode(self.call("ExecSync", {1: container, 2: list(argv), 3: 60}))
        return r.get(1, [b""])[-1].decode(), r.get(2, [b""])[-1].decode(), r.get(3, [0])[-1]

    def stats(self, container):
        """(nanoseconds of processor time, bytes of memory)"""
        s = dig(self.call("ContainerStats", {1: container}), 1)
        return dig(s, 2, 2, 1) or 0, dig(s, 3, 2, 1) or 0

    def stream(self, method, message, query=""):
        url = dig(self.call(method, message), 1).decode()
        return websocket.create_connection(url.replace("http", "ws", 1) + query, subprotocols=["v4.channel.k8s.io"], timeout=60)


def gather(stream, until):
    """What comes on each channel, until `until` says that it is enough, or the stream ends."""
    got = {}
    while not until(got):
        try:
            data = stream.recv()
        except websocket.WebSocketConnectionClosedException:
            break
        if not data:
            break
        got[data[0]] = got.get(data[0], b"") + data[1:]
    return got


def port_of(data):
    return struct.unpack("<H", data)[0]
