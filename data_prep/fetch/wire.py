"""HTTP/1.1 answers from a socket, with a bound on every byte and every second.

`http.client` has no bound for a whole head and no deadline: a server that sends one byte per second holds it for ever.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from data_prep.fetch.outcome import FetchError

BLOCK = 65_536
MAX_INTERIM = 8  # 1xx answers before the real one
_STATUS = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: [^\r\n]*)?")
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,12})[ \t]*(?:;.*)?")


class Deadline:
    """A moment after which nothing is waited for."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, more than zero.

        Raises:
            FetchError: `timeout`, when it has passed.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise FetchError("timeout", "the deadline of the attempt passed", transient=True)
        return left

    def extend(self, seconds: float) -> None:
        """Do not count time that we waited of our own will."""
        self._end += seconds


@dataclass(frozen=True)
class Head:
    """Status and headers of an answer."""

    status: int
    headers: dict[str, list[str]]  # names in lower case, values in order
    keep_alive: bool

    def all(self, name: str) -> list[str]:
        """Values of a header, in order."""
        return self.headers.get(name, [])

    def get(self, name: str) -> str | None:
        """The first value of a header that is not empty."""
        return next((value for value in self.all(name) if value), None)

    def length(self) -> int | None:
        """Content-Length, or None without one.

        Raises:
            FetchError: `http_invalid`: no number, or values that contradict each other.
        """
        values = {part.strip() for value in self.all("content-length") for part in value.split(",")}
        if not values:
            return None
        value = values.pop()
        if values or not re.fullmatch("[0-9]{1,18}", value):
            raise FetchError("http_invalid", f"Content-Length {self.all('content-length')[:3]}", status=self.status)
        return int(value)


class Connection:
    """One connection to one origin; answers are read one after the other.

    Args:
        sock: connected, TLS done.
        read_timeout: s without a byte.
    """

    def __init__(self, sock: socket.socket, read_timeout: float) -> None:
        self._sock = sock
        self._read_timeout = read_timeout
        self._buffer = bytearray()
        self.started = False  # a byte of the current answer has come
        self.clean = True  # nothing is left of the last answer, so another request may be sent

    def send(self, request: bytes, deadline: Deadline) -> None:
        """Send a request."""
        self.started = False
        self.clean = False
        self._sock.settimeout(min(self._read_timeout, deadline.left()))
        self._sock.sendall(request)

    def read_head(self, limit: int, deadline: Deadline) -> Head:
        """Read the next head that is not an interim one.

        Args:
            limit: bytes, interim heads included.
            deadline: for all of it.

        Raises:
            FetchError: `http_invalid`, `interrupted` or `timeout`.
            OSError: of the socket.
        """
        for _ in range(MAX_INTERIM):
            raw = self._read_raw_head(limit, deadline)
            limit -= len(raw)
            head = _parse_head(raw)
            if head.status >= 200:
                return head
        raise FetchError("http_invalid", f"more than {MAX_INTERIM} interim answers")

    def read_body(self, head: Head, limit: int, deadline: Deadline, cut: bool = False) -> bytes:
        """Read the body that belongs to a head.

        Args:
            head: as `read_head` gave it.
            limit: bytes.
            deadline: for all of it.
            cut: give the first `limit` bytes of a longer body, instead of refusing it.

        Raises:
            FetchError: `too_large`, `http_invalid`, `interrupted` or `timeout`.
            OSError: of the socket.
        """
        if head.status in (204, 304):
            self.clean = head.keep_alive and not self._buffer
            return b""
        coding = ", ".join(head.all("transfer-encoding")).strip().lower()
        length = head.length()
        if coding not in ("", "chunked"):
            raise FetchError("http_invalid", f"Transfer-Encoding {coding[:40]!r}", status=head.status)
        if coding:
            pieces = self._chunks(deadline)
        elif length is not None:
            if length > limit and not cut:
                raise FetchError("too_large", f"{length} bytes announced (limit {limit})", status=head.status)
            pieces = self._take(length, deadline)
        else:
            pieces = self._until_closed(deadline)
        content = []
        size = 0
        for piece in pieces:
            size += len(piece)
            content.append(piece)
            if size > limit:
                if not cut:
                    raise FetchError("too_large", f"more than {limit} bytes", status=head.status)
                return b"".join(content)[:limit]
        delimited = length is not None if not coding else length is None
        self.clean = head.keep_alive and delimited and not self._buffer
        return b"".join(content)

    def skip_body(self, head: Head) -> None:
        """Drop an unwanted body that has come along with its head; for a longer one the connection is given up."""
        length = head.length()
        if head.keep_alive and length == len(self._buffer) and not head.all("transfer-encoding"):
            self._buffer.clear()
            self.clean = True

    def is_alive(self) -> bool:
        """Whether another request may be sent. An idle connection with something to read was closed, or is confused."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return self.clean and not poll.poll(0)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _read_raw_head(self, limit: int, deadline: Deadline) -> bytes:
        start = 0
        while not (end := _END_OF_HEAD.search(self._buffer, start)):
            start = max(0, len(self._buffer) - 2)
            if len(self._buffer) > limit:
                break
            self._fill(deadline)
        if end is None or end.end() > limit:
            raise FetchError("http_invalid", "the head of the answer is too large")
        raw = bytes(self._buffer[: end.start()])
        del self._buffer[: end.end()]
        return raw

    def _fill(self, deadline: Deadline) -> None:
        self._buffer += self._receive(BLOCK, deadline)

    def _receive(self, size: int, deadline: Deadline) -> bytes:
        if not (block := self._receive_or_end(size, deadline)):
            raise FetchError("interrupted", "the server closed the connection too early", transient=True)
        return block

    def _receive_or_end(self, size: int, deadline: Deadline) -> bytes:
        self._sock.settimeout(min(self._read_timeout, deadline.left()))
        block = self._sock.recv(size)
        self.started = self.started or bool(block)
        return block

    def _take(self, size: int, deadline: Deadline) -> Iterator[bytes]:
        """Exactly `size` bytes, in pieces."""
        if size and self._buffer:
            piece = bytes(self._buffer[:size])
            del self._buffer[:size]
            size -= len(piece)
            yield piece
        while size:
            piece = self._receive(min(size, BLOCK), deadline)
            size -= len(piece)
            yield piece

    def _until_closed(self, deadline: Deadline) -> Iterator[bytes]:
        yield bytes(self._buffer)
        self._buffer.clear()
        while block := self._receive_or_end(BLOCK, deadline):
            yield block

    def _chunks(self, deadline: Deadline) -> Iterator[bytes]:
        """Chunked coding. What small chunks with long extensions can cost is bounded by the content."""
        allowed = BLOCK  # bytes of framing
        while True:
            line = self._line(deadline)
            match = _CHUNK.fullmatch(line)
            if not match:
                raise FetchError("http_invalid", f"chunk size {line[:20]!r}")
            size = int(match[1], 16)
            allowed += 8 * size - len(line)
            if allowed < 0:
                raise FetchError("http_invalid", "more framing than content")
            if not size:
                break
            yield from self._take(size, deadline)
            if self._line(deadline):
                raise FetchError("http_invalid", "a chunk that is longer than its size")
        allowed = BLOCK
        while line := self._line(deadline):  # trailers
            allowed -= len(line)
            if allowed < 0:
                raise FetchError("http_invalid", "endless trailers")

    def _line(self, deadline: Deadline) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > BLOCK:
                raise FetchError("http_invalid", "a line of the chunked coding is too long")
            self._fill(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")


def _parse_head(raw: bytes) -> Head:
    first, *lines = raw.split(b"\n")
    match = _STATUS.fullmatch(first.rstrip(b"\r"))
    if not match:
        raise FetchError("http_invalid", f"not an HTTP/1 answer: {first[:40]!r}")
    headers: dict[str, list[str]] = {}
    last: list[str] | None = None
    for line in lines:
        text = line.rstrip(b"\r").decode("latin-1")
        if text.startswith((" ", "\t")):  # folded
            if last:
                last[-1] += " " + text.strip()
            continue
        name, sign, value = text.partition(":")
        if sign:  # lines without one are skipped, as browsers do
            last = headers.setdefault(name.strip().lower(), [])
            last.append(value.strip())
    connection = ",".join(headers.get("connection", [])).lower()
    return Head(int(match[2]), headers, keep_alive=match[1] == b"1" and "close" not in connection)
