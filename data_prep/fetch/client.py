"""One request, one answer: through the host's gate, on a connection to a checked address."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable

from data_prep.fetch.address import Address, Target
from data_prep.fetch.config import FetchConfig
from data_prep.fetch.gates import HostGates
from data_prep.fetch.outcome import FetchError
from data_prep.fetch.resolve import Resolver
from data_prep.fetch.wire import Connection, Deadline, Head
from dreamline.config import ConfigError

MAX_ADDRESSES = 4  # of one host that are tried
MAX_IDLE = 128  # idle connections kept
KEEP_IDLE = 4.0  # s; many servers close after 5
OURS = {  # failures of our own network or limits, not of the server
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.EADDRNOTAVAIL,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
}


class Client:
    """Sends GET requests for targets that were read strictly; knows neither redirects nor robots.

    Args:
        config: limits and the agent's name.
        resolver: gives addresses that may be connected to. Names are never resolved elsewhere.
        gates: leave for each request.
    """

    def __init__(self, config: FetchConfig, resolver: Resolver, gates: HostGates) -> None:
        self._config = config
        self._resolver = resolver
        self._gates = gates
        self._tls: ssl.SSLContext | None = None
        if config.ca_file and not os.access(config.ca_file, os.R_OK):
            raise ConfigError(f"fetch.ca_file: {config.ca_file} cannot be read; give a PEM file of authorities")
        self._idle: dict[str, list[tuple[float, Connection]]] = {}  # by origin, oldest first
        self._num_idle = 0
        self._lock = threading.Lock()

    def get(
        self, target: Target, deadline: Deadline, limit: int, wanted: Callable[[Head], bool], cut: bool = False
    ) -> tuple[Head, bytes]:
        """Head and body of one answer, whatever its status.

        Args:
            target: what to ask for.
            deadline: for all of it; waiting for the gate does not count.
            limit: bytes of the body.
            wanted: whether the body is wanted, by its head; else it is empty. What it raises ends the request.
            cut: give the first `limit` bytes of a longer body, instead of refusing it.

        Raises:
            FetchError: why there is no whole answer.
        """
        with self._gates.enter(target.host) as waited:
            deadline.extend(waited)
            try:
                idle = self._take_idle(target.origin)
                if idle is not None:
                    try:
                        return self._exchange(idle, target, deadline, limit, wanted, cut)
                    except (FetchError, OSError) as error:
                        stale = isinstance(error, ConnectionError) or (
                            isinstance(error, FetchError) and error.reason == "interrupted"
                        )
                        if idle.started or not stale:
                            raise  # else the server closed it just now: not its fault, so once more on a new one
                return self._exchange(self._connect(target, deadline), target, deadline, limit, wanted, cut)
            except OSError as error:
                raise _translate(error, target) from None

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            for idle in self._idle.values():
                for _, connection in idle:
                    connection.close()
            self._idle.clear()
            self._num_idle = 0

    def _exchange(
        self,
        connection: Connection,
        target: Target,
        deadline: Deadline,
        limit: int,
        wanted: Callable[[Head], bool],
        cut: bool,
    ) -> tuple[Head, bytes]:
        try:
            connection.send(self._request(target), deadline)
            head = connection.read_head(self._config.max_header_bytes, deadline)
            body = b""
            if wanted(head):
                body = connection.read_body(head, limit, deadline, cut)
            else:
                connection.skip_body(head)
        except BaseException:
            connection.close()
            raise
        if connection.clean:
            self._keep(target.origin, connection)
        else:
            connection.close()
        return head, body

    def _request(self, target: Target) -> bytes:
        return (
            f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: {self._config.user_agent}\r\n"
            "Accept: image/*, */*;q=0.5\r\nAccept-Encoding: identity\r\nConnection: keep-alive\r\n\r\n"
        ).encode("ascii")

    def _connect(self, target: Target, deadline: Deadline) -> Connection:
        """A new connection to an address that was checked, and to nothing else."""
        error: OSError = OSError("no address")
        for address in self._resolver.resolve(target.host, deadline.left())[:MAX_ADDRESSES]:
            try:
                return Connection(self._open(address, target, deadline), self._config.read_timeout)
            except ssl.SSLError:
                raise
            except OSError as latest:
                error = latest
        raise error

    def _open(self, address: Address, target: Target, deadline: Deadline) -> socket.socket:
        sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            sock.settimeout(min(self._config.connect_timeout, deadline.left()))
            sock.connect((str(address), target.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.scheme == "http":
                return sock
            sock.settimeout(min(self._config.connect_timeout, deadline.left()))  # bounds the handshake as a whole
            return self._context().wrap_socket(sock, server_hostname=target.host)
        except BaseException:
            sock.close()
            raise

    def _context(self) -> ssl.SSLContext:
        """Made once and late: reading the system's authorities is slow."""
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context(cafile=self._config.ca_file)
            return self._tls

    def _take_idle(self, origin: str) -> Connection | None:
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                if not idle:
                    return None
                since, connection = idle.pop()
                self._num_idle -= 1
                if not idle:
                    del self._idle[origin]
            if time.monotonic() - since < KEEP_IDLE and connection.is_alive():
                return connection
            connection.close()

    def _keep(self, origin: str, connection: Connection) -> None:
        dropped = None
        with self._lock:
            self._idle.setdefault(origin, []).append((time.monotonic(), connection))
            self._num_idle += 1
            if self._num_idle > MAX_IDLE:
                oldest = min(self._idle, key=lambda name: self._idle[name][0][0])
                dropped = self._idle[oldest].pop(0)[1]
                self._num_idle -= 1
                if not self._idle[oldest]:
                    del self._idle[oldest]
        if dropped:
            dropped.close()


def _translate(error: OSError, target: Target) -> FetchError:
    """The class of a socket's failure."""
    detail = f"{target.host}: {error or type(error).__name__}"
    if isinstance(error, TimeoutError):
        return FetchError("timeout", detail, transient=True)
    if isinstance(error, ssl.SSLEOFError):
        return FetchError("interrupted", detail, transient=True)
    if isinstance(error, ssl.SSLError):
        return FetchError("tls_failed", detail)
    if isinstance(error, ConnectionRefusedError):
        return FetchError("connect_failed", detail)
    if isinstance(error, ConnectionError):
        return FetchError("interrupted", detail, transient=True)
    return FetchError("connect_failed", detail, transient=error.errno in OURS)
