"""Delay and count the requests to an S3 server, by a proxy in its own process.

Every request waits for the latency before it is forwarded, and so does every new connection, whose handshake takes one
round trip. Transfers are not limited. The process reads a JSON list of times from its standard input, in seconds of the
monotonic clock, and writes the counts of the requests in each interval between them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, urlsplit

__all__ = ["OPERATIONS", "RequestCounts", "RequestProxy"]

# Every kind of request that is counted. POST with several keys counts as one DELETE; MULTIPART is any request of a
# multipart upload.
OPERATIONS = ("GET", "HEAD", "LIST", "PUT", "COPY", "MULTIPART", "DELETE")
MAX_HEAD_BYTES = 1 << 16
BLOCK_BYTES = 1 << 18
FOLDERS = ("_commits", "_parts", "_plan", "_backup", "_annotations", "_run.json")


@dataclass
class RequestCounts:
    """Requests of an interval.

    Attributes:
        by_kind: number by operation and group of objects, as 'PUT _parts'.
        failed: number by operation and HTTP status, for statuses from 400 on.
        bytes_up, bytes_down: bytes sent to the server and received, with heads.
    """

    by_kind: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def total(self) -> int:
        """The number of requests."""
        return self.by_kind.total()

    def count(self, operation: str, group: str | None = None) -> int:
        """Return the number of requests of an operation, in one group or all."""
        kinds = ((kind.partition(" "), number) for kind, number in self.by_kind.items())
        return sum(number for (name, _, other), number in kinds if name == operation and group in (None, other))

    def add(self, other: RequestCounts) -> None:
        """Add the requests of another interval."""
        self.by_kind.update(other.by_kind)
        self.failed.update(other.failed)
        self.bytes_up += other.bytes_up
        self.bytes_down += other.bytes_down

    def to_dict(self) -> dict[str, object]:
        """Return the counts as JSON values."""
        return {
            "by_kind": dict(sorted(self.by_kind.items())),
            "failed": dict(sorted(self.failed.items())),
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, object]) -> Self:
        """Read what `to_dict` returned."""
        counters = {name: Counter(body[name]) for name in ("by_kind", "failed")}  # type: ignore[call-overload]
        return cls(**counters, bytes_up=int(str(body["bytes_up"])), bytes_down=int(str(body["bytes_down"])))


class RequestProxy:
    """A running proxy before the server at a local port; `endpoint` is its address."""

    def __init__(self, port: int, latency_s: float) -> None:
        command = [sys.executable, "-m", __spec__.name if __name__ == "__main__" else __name__]
        self._process = subprocess.Popen(
            [*command, str(port), str(latency_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.endpoint = f"http://127.0.0.1:{int(self._read_line())}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()  # it ends with its input

    def count(self, times: Sequence[float]) -> list[RequestCounts]:
        """Return the counts of the intervals between times of the monotonic clock; the proxy then starts from zero."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(times)) + "\n")
        self._process.stdin.flush()
        return [RequestCounts.from_dict(body) for body in json.loads(self._read_line())]

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"the proxy of the benchmark ended with code {self._process.wait()}")
        return line


@dataclass(slots=True)
class _Request:
    """One request: the time when it arrived, its kind, the status of its response, and the bytes of both."""

    time: float
    kind: str
    up: int
    down: int = 0
    status: int = 0


@dataclass
class _Proxy:
    port: int
    latency_s: float
    requests: list[_Request] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward the requests of one connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(self.latency_s)
            responses, upstream = await asyncio.open_connection("127.0.0.1", self.port, limit=MAX_HEAD_BYTES)
            current = [_Request(time.monotonic(), "GET", 0)]
            back = asyncio.create_task(_forward_responses(responses, writer, current))
            try:
                await self._forward_requests(reader, upstream, current)
            finally:
                upstream.close()
                with suppress(OSError):
                    await back
        writer.close()

    async def _forward_requests(
        self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, current: list[_Request]
    ) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = _parse_fields(head)
            size = int(fields.get(b"content-length", b"0"))
            current[0] = _Request(time.monotonic(), _kind_of(head, fields), len(head) + size)
            self.requests.append(current[0])
            # A client that asks whether it may send the body waits for one more round trip.
            await asyncio.sleep(self.latency_s * (2 if b"expect" in fields else 1))
            upstream.write(head)
            while size:
                block = await reader.read(min(size, BLOCK_BYTES))
                if not block:
                    return
                size -= len(block)
                upstream.write(block)
                await upstream.drain()

    def count(self, times: Sequence[float]) -> list[RequestCounts]:
        """Count the requests of each interval, and forget them all."""
        counts = [RequestCounts() for _ in times[1:]]
        for request in self.requests:
            interval = bisect_right(times, request.time) - 1
            if 0 <= interval < len(counts):
                counts[interval].by_kind[request.kind] += 1
                counts[interval].bytes_up += request.up
                counts[interval].bytes_down += request.down
                if request.status >= 400:
                    counts[interval].failed[f"{request.kind} {request.status}"] += 1
        self.requests.clear()
        return counts


async def _forward_responses(
    responses: asyncio.StreamReader, writer: asyncio.StreamWriter, current: list[_Request]
) -> None:
    with suppress(OSError):
        while block := await responses.read(BLOCK_BYTES):
            request = current[0]
            if not request.status and block.startswith(b"HTTP/1.1 ") and not block.startswith(b"HTTP/1.1 100"):
                request.status = int(block[9:12])
            request.down += len(block)
            writer.write(block)
            await writer.drain()
        writer.close()


def _parse_fields(head: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:] if b":" in line)
    return {name.lower(): value.strip() for name, _, value in lines}


def _kind_of(head: bytes, fields: Mapping[bytes, bytes]) -> str:
    """Return the operation and the group of objects of a request, by its first line and its fields."""
    method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    key = query["prefix"][0] if "prefix" in query else parts.path.lstrip("/").partition("/")[2]
    return f"{_operation_of(method, query.keys(), b'x-amz-copy-source' in fields)} {_group_of(key)}".rstrip()


def _operation_of(method: str, names: Set[str], is_copy: bool) -> str:
    if names & {"uploads", "uploadId"}:
        return "MULTIPART"
    if method == "GET" and names & {"list-type", "prefix", "delimiter"}:
        return "LIST"
    if method == "POST" and "delete" in names:
        return "DELETE"
    return "COPY" if is_copy else method


def _group_of(key: str) -> str:
    """Return the folder of the output that a key is in, 'videos' for a source, or 'dataset' for all others."""
    names = key.split("/")
    if names[0] == "videos":
        return "videos"
    return next((name for name in names if name in FOLDERS), "dataset")


async def _serve(port: int, latency_s: float) -> None:
    proxy = _Proxy(port, latency_s)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0, limit=MAX_HEAD_BYTES, backlog=512)
    _write_line(str(server.sockets[0].getsockname()[1]))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _write_line(json.dumps([counts.to_dict() for counts in proxy.count(json.loads(line))]))
    os._exit(0)  # asyncio would log the cancellation of every open connection


def _write_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
