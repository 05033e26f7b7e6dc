"""Names to addresses: asked once, in bounded time, and only global ones are given out."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeAlias

from data_prep.fetch.address import Address, is_global
from data_prep.fetch.outcome import FetchError

Lookup: TypeAlias = Callable[[str], Sequence[str]]  # host to addresses; raises OSError as the system's resolver does

KEEP = 300.0  # s that an answer is used
KEEP_FAILURE = 30.0  # s that "no such name" is believed
MAX_HOSTS = 20_000  # remembered answers
MAX_LOOKUPS = 64  # at the same time; the system's resolver cannot be interrupted, so each has a thread of its own
TEMPORARY = (socket.EAI_AGAIN, socket.EAI_SYSTEM, socket.EAI_MEMORY)  # what else it says is final


def system_lookup(host: str) -> list[str]:
    """Addresses by the system's resolver, in its order of preference."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


class Resolver:
    """Remembers answers, so that a host is asked for once and threads share a lookup in flight.

    Args:
        allow_private: give out private addresses too.
        lookup: what asks; the system's resolver by default.
    """

    def __init__(self, allow_private: bool, lookup: Lookup = system_lookup) -> None:
        self._allow_private = allow_private
        self._lookup = lookup
        self._known: dict[str, tuple[float, Future[list[Address] | OSError]]] = {}
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_LOOKUPS)

    def resolve(self, host: str, timeout: float) -> list[Address]:
        """Addresses that may be connected to, at least one.

        Args:
            host: a name or an address, as `Target.host`.
            timeout: s.

        Raises:
            FetchError: `address_private`, `dns_not_found`, or `dns_failed` (no answer, or none in time).
        """
        try:
            return self._allowed(host, [ipaddress.ip_address(host)])
        except ValueError:
            pass
        now = time.monotonic()
        with self._lock:
            until, answer = self._known.get(host, (0.0, None))
            if answer is None or now >= until:
                answer = Future()
                if len(self._known) >= MAX_HOSTS:
                    self._known.clear()
                self._known[host] = (now + KEEP, answer)
                threading.Thread(target=self._ask, args=(host, answer), name=f"resolve {host}", daemon=True).start()
        try:
            found = answer.result(timeout)
        except FutureTimeout:
            raise FetchError("dns_failed", f"no answer for {host} in {timeout:.1f} s", transient=True) from None
        if isinstance(found, OSError):
            if _is_final(found):
                raise FetchError("dns_not_found", f"{host}: {found}")
            raise FetchError("dns_failed", f"{host}: {found}", transient=True)
        return self._allowed(host, found)

    def _ask(self, host: str, answer: Future[list[Address] | OSError]) -> None:
        with self._slots:
            found: list[Address] | OSError
            try:
                # a zone ("%eth0") belongs to link-local addresses; without it they are refused as such
                found = [ipaddress.ip_address(text.partition("%")[0]) for text in self._lookup(host)]
            except OSError as error:
                found = error.with_traceback(None)
            except ValueError as error:  # UnicodeError of names that the system's resolver cannot encode
                found = socket.gaierror(socket.EAI_NONAME, str(error))
        if isinstance(found, OSError):
            self._forget(host, answer, KEEP_FAILURE if _is_final(found) else 0.0)
        answer.set_result(found)

    def _forget(self, host: str, answer: Future[list[Address] | OSError], after: float) -> None:
        with self._lock:
            if self._known.get(host, (0.0, None))[1] is answer:
                self._known[host] = (time.monotonic() + after, answer)

    def _allowed(self, host: str, found: list[Address]) -> list[Address]:
        allowed = [address for address in found if self._allow_private or is_global(address)]
        if not allowed:
            raise FetchError("address_private", f"{host} is {', '.join(map(str, found[:4])) or 'nowhere'}: not global")
        return allowed


def _is_final(error: OSError) -> bool:
    return isinstance(error, socket.gaierror) and error.errno not in TEMPORARY
