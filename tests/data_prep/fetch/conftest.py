"""A scripted web server on raw sockets, and an internet whose global addresses all lead to it."""

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import pytest

from data_prep.fetch.config import FetchConfig
from data_prep.fetch.fetcher import Fetcher

# what a page answers: raw bytes, or for its n-th request (from 0) pieces to send; a number is a pause in seconds
Page = bytes | Callable[[int], Iterable[bytes | float]]


def answer(body: bytes = b"picture", status: int = 200, *headers: str) -> bytes:
    """A well-formed answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Site:
    """Pages by path; `*` is any other. Without one the answer is 404."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[tuple[float, str, str]] = []  # time, path, head
        self.num_connections = 0
        self.busy = 0
        self.max_busy = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.requests]

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.num_connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as file:
            try:
                while head := self._read_head(file):
                    path = head.split(b" ")[1].decode("latin-1")
                    with self._lock:
                        nth = self.paths().count(path)
                        self.requests.append((time.monotonic(), path, head.decode("latin-1")))
                        self.busy += 1
                        self.max_busy = max(self.max_busy, self.busy)
                    try:
                        if self._send(sock, self.pages.get(path, self.pages.get("*", answer(b"", 404))), nth):
                            return
                    finally:
                        with self._lock:
                            self.busy -= 1
            except (OSError, IndexError):
                return  # the client went away

    def _read_head(self, file: BinaryIO) -> bytes:
        head = b""
        while (line := file.readline()) and line != b"\r\n":
            head += line
        return head

    def _send(self, sock: socket.socket, page: Page, nth: int) -> bool:
        """Send one answer; scripted ones end the connection, since their lengths may lie."""
        if isinstance(page, bytes):
            sock.sendall(page)
            return b"\r\nConnection: close" in page
        for piece in page(nth):
            if isinstance(piece, bytes):
                sock.sendall(piece)
            else:
                time.sleep(piece)
        return True


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    yield one
    one.close()


class Internet:
    """Names and every connection of the test; connections to global addresses reach the site."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.names: dict[str, list[str]] = {}
        self.lookups: list[str] = []
        self.connected: list[str] = []  # addresses

    def lookup(self, host: str) -> list[str]:
        self.lookups.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.names[host]

    def private(self) -> list[str]:
        """Addresses that no fetch may have reached."""
        return [text for text in self.connected if not ipaddress.ip_address(text).is_global]

    def fetcher(self, **changes: object) -> Fetcher:
        settings: dict[str, object] = {"host_rate": 0, "retries": 0, "deadline": 60, "robots_txt": False, **changes}
        return Fetcher(FetchConfig.model_validate(settings), lookup=self.lookup)


@pytest.fixture
def internet(site: Site, monkeypatch: pytest.MonkeyPatch) -> Internet:
    one = Internet(site)
    connect = socket.socket.connect

    def recorded(sock: socket.socket, address: tuple[str, int]) -> None:
        one.connected.append(address[0])
        if sock.family == socket.AF_INET and ipaddress.ip_address(address[0]).is_global:
            return connect(sock, ("127.0.0.1", site.port))
        raise ConnectionRefusedError(f"{address} is not on this internet")

    monkeypatch.setattr(socket.socket, "connect", recorded)
    return one


@pytest.fixture
def make_fetcher() -> Iterator[Callable[..., Fetcher]]:
    """Fetchers that may reach the site itself; settings may be changed by name."""
    made = []

    def make(share: int = 1, **changes: object) -> Fetcher:
        settings: dict[str, object] = {
            "allow_private": True,
            "robots_txt": False,
            "host_rate": 0,
            "retries": 0,
            "backoff": 0.01,
            "read_timeout": 20,
            "connect_timeout": 20,
            "deadline": 60,
            **changes,
        }
        made.append(Fetcher(FetchConfig.model_validate(settings), share))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def make_answer() -> Callable[..., bytes]:
    return answer
