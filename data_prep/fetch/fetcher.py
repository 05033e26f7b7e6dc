"""`Fetcher`: one URL in, its bytes or the reason why not out."""

from __future__ import annotations

import contextlib
import email.utils
import random
import threading
import time
from dataclasses import dataclass

from data_prep.fetch.address import Target, follow, parse_url
from data_prep.fetch.client import Client
from data_prep.fetch.config import FetchConfig
from data_prep.fetch.gates import HostGates
from data_prep.fetch.optout import read_opt_out
from data_prep.fetch.outcome import Fetched, FetchError, FetchFailure, Outcome
from data_prep.fetch.resolve import Lookup, Resolver, system_lookup
from data_prep.fetch.robots import MAX_BYTES, RobotRules, RobotsCache, parse_robots
from data_prep.fetch.wire import Deadline, Head

REDIRECTS = (301, 302, 303, 307, 308)
THROTTLED = (408, 425, 429)
MAX_ROBOTS_REDIRECTS = 5  # as RFC 9309 asks


@dataclass(frozen=True)
class _Answer:
    target: Target  # after redirects
    head: Head
    body: bytes
    robots: str | None


class Fetcher:
    """Fetches URLs; safe to use from many threads, and made anew in each process.

    Args:
        config: limits and manners.
        share: processes that fetch at the same time; each takes its part of the limits per host.
        lookup: asks for the addresses of a name; the system's resolver by default.
    """

    def __init__(self, config: FetchConfig, share: int = 1, lookup: Lookup = system_lookup) -> None:
        if share < 1:
            raise ValueError(f"share is {share}; at least one process fetches")
        self._config = config
        self._ports = None if config.allow_private else config.ports
        self._closed = threading.Event()
        self._gates = HostGates(config.host_rate, config.host_concurrency, share, self._closed)
        self._client = Client(config, Resolver(config.allow_private, lookup), self._gates)
        self._robots = RobotsCache(self._read_robots, config.backoff)

    def fetch(self, url: str) -> Outcome:
        """Fetch one URL, with retries. Never raises for what a URL or a server does.

        One attempt takes `deadline` seconds at most, besides waiting for the host's rate; between attempts it waits
        `max_wait` seconds at most.
        """
        attempt = 0
        while True:
            outcome = self._attempt(url)
            if isinstance(outcome, Fetched) or not outcome.transient or attempt >= self._config.retries:
                return outcome
            wait = self._config.backoff * 2**attempt * random.uniform(0.5, 1.5)
            if outcome.retry_after is not None:
                if outcome.retry_after > self._config.max_wait:
                    return outcome
                wait = max(wait, outcome.retry_after)
            if self._closed.wait(min(wait, self._config.max_wait)):
                return outcome
            attempt += 1

    def close(self) -> None:
        """Close idle connections and end all waiting. What is asked for later fails as interrupted."""
        self._closed.set()
        self._client.close()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _attempt(self, url: str) -> Outcome:
        try:
            return self._fetch(url, Deadline(self._config.deadline))
        except FetchError as error:
            return error.failure(url)
        except Exception as error:  # a fault of ours must cost one row, not the job; the ledger shows it
            return FetchFailure(url, "unexpected", f"{type(error).__name__}: {error}"[:500])

    def _fetch(self, url: str, deadline: Deadline) -> Fetched:
        opt_out: str | None = None

        def wanted(head: Head) -> bool:
            """Judge the head, so that nothing is downloaded in vain."""
            nonlocal opt_out
            if head.status in REDIRECTS:
                return False
            self._check_status(head, target.host)
            opt_out = read_opt_out(
                head.all("x-robots-tag"), head.get("tdm-reservation"), self._config.agent, self._config.opt_outs
            )
            if opt_out and self._config.opt_out_headers:
                raise FetchError("opt_out", opt_out, status=head.status)
            kind = (head.get("content-type") or "").partition(";")[0].strip().lower()
            if kind in ("text/html", "application/xhtml+xml"):
                raise FetchError("html", f"Content-Type {kind}", status=head.status)
            _check_coding(head)
            return True

        target = parse_url(url, self._ports)
        seen = set()
        while True:
            seen.add(target)
            robots = self._ask_robots(target, deadline)
            head, body = self._client.get(target, deadline, self._config.max_bytes, wanted)
            if head.status not in REDIRECTS:
                break
            target = self._next(target, head)
            if target in seen:
                raise FetchError("redirects", f"a loop at {target.url}", status=head.status)
            if len(seen) > self._config.max_redirects:
                raise FetchError("redirects", f"more than {self._config.max_redirects}", status=head.status)
        return Fetched(url, target.url, head.status, body, head.get("content-type"), robots, opt_out)

    def _next(self, target: Target, head: Head) -> Target:
        location = head.get("location")
        if location is None:
            raise FetchError("redirects", f"status {head.status} without a Location", status=head.status)
        with contextlib.suppress(UnicodeError):  # bytes beyond ASCII are against the rules, common, and mostly UTF-8
            location = location.encode("latin-1").decode("utf-8")
        return follow(target, location, self._ports)

    def _check_status(self, head: Head, host: str) -> None:
        """Raise for what is not 200."""
        status = head.status
        if status == 200:
            return
        retry_after = _read_retry_after(head.get("retry-after"))
        if status in THROTTLED or status >= 500:
            if retry_after:
                self._gates.pause(host, min(retry_after, self._config.max_wait))
            raise FetchError(
                "throttled" if status in THROTTLED else "http_5xx",
                f"status {status}",
                transient=True,
                status=status,
                retry_after=retry_after,
            )
        raise FetchError("http_4xx" if status >= 400 else "http_other", f"status {status}", status=status)

    def _ask_robots(self, target: Target, deadline: Deadline) -> str | None:
        if not self._config.robots_txt:
            return None
        rules = self._robots.rules(target, deadline)
        if not rules.allows(target.path):
            raise FetchError("robots_txt", f"robots.txt of {target.origin} disallows {target.path[:200]}")
        return "absent" if rules.absent else "allowed"

    def _read_robots(self, origin: Target, deadline: Deadline) -> RobotRules:
        """The rules of an origin: absent where the server says so, refused for now where it cannot say."""
        target = Target(origin.scheme, origin.host, origin.port, "/robots.txt")
        try:
            for _ in range(MAX_ROBOTS_REDIRECTS + 1):
                head, body = self._client.get(target, deadline, MAX_BYTES, _is_success, cut=True)
                if head.status not in REDIRECTS:
                    break
                target = self._next(target, head)
            if _is_success(head):
                _check_coding(head)
                return parse_robots(body.decode("utf-8", errors="replace"), self._config.agent)
            if head.status not in REDIRECTS and (head.status >= 500 or head.status in THROTTLED):
                self._check_status(head, target.host)
            return RobotRules(absent=True)
        except FetchError as error:
            if not error.transient and target.host == origin.host and error.reason in _OF_THE_HOST:
                raise  # the picture would fail in the same way: the more exact reason
            raise FetchError(
                "robots_unreachable",
                f"{target.url}: {error.detail}",
                transient=error.transient,
                status=error.status,
                retry_after=error.retry_after,
            ) from None


_OF_THE_HOST = ("address_private", "dns_not_found", "connect_failed", "tls_failed")


def _is_success(head: Head) -> bool:
    return 200 <= head.status < 300


def _check_coding(head: Head) -> None:
    coding = ",".join(head.all("content-encoding")).strip().lower()
    if coding not in ("", "identity"):
        raise FetchError("encoded", f"Content-Encoding {coding[:40]!r}, not asked for", status=head.status)


def _read_retry_after(value: str | None) -> float | None:
    """Seconds from now, of a number or of a date; None for anything else."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
