"""Manners towards hosts: how many requests at once and how many per second, over all threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from data_prep.fetch.outcome import FetchError

MAX_GATES = 10_000  # hosts remembered; idle ones are forgotten beyond it


@dataclass
class _Gate:
    slots: threading.Semaphore
    next_at: float = 0.0  # monotonic time before which no request may start
    users: int = 0


class HostGates:
    """One gate per host.

    Args:
        rate: requests per second to one host over the whole job; 0: no limit.
        concurrency: requests at once to one host over the whole job.
        share: processes that keep these limits together. Each takes its part, but at least one request at once.
        closed: ends all waiting when set.
    """

    def __init__(self, rate: float, concurrency: int, share: int, closed: threading.Event) -> None:
        self._interval = share / rate if rate else 0.0
        self._concurrency = max(1, concurrency // share)
        self._closed = closed
        self._gates: dict[str, _Gate] = {}
        self._lock = threading.Lock()

    @contextmanager
    def enter(self, host: str) -> Iterator[float]:
        """Wait for leave to send one request, and hold a slot until its answer is read. Yields the seconds waited.

        Raises:
            FetchError: `interrupted`, when closed.
        """
        start = time.monotonic()
        with self._lock:
            gate = self._gate(host)
            gate.users += 1
        try:
            with gate.slots:
                with self._lock:
                    begin = max(time.monotonic(), gate.next_at)
                    gate.next_at = begin + self._interval
                if (wait := begin - time.monotonic()) > 0:
                    self._closed.wait(wait)
                if self._closed.is_set():
                    raise FetchError("interrupted", "the fetcher was closed", transient=True)
                yield time.monotonic() - start
        finally:
            with self._lock:
                gate.users -= 1

    def pause(self, host: str, seconds: float) -> None:
        """Start no request to a host for a while, because it asked so."""
        with self._lock:
            gate = self._gate(host)
            gate.next_at = max(gate.next_at, time.monotonic() + seconds)

    def _gate(self, host: str) -> _Gate:
        gate = self._gates.get(host)
        if gate is None:
            if len(self._gates) >= MAX_GATES:
                now = time.monotonic()
                self._gates = {name: one for name, one in self._gates.items() if one.users or one.next_at > now}
            gate = self._gates[host] = _Gate(threading.Semaphore(self._concurrency))
        return gate
