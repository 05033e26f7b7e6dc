"""robots.txt as RFC 9309 says: groups by product token, the longest rule wins, * and $ in paths."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from urllib.parse import quote

from data_prep.fetch.address import Target
from data_prep.fetch.outcome import FetchError, FetchFailure
from data_prep.fetch.wire import Deadline

MAX_BYTES = 512 * 1024  # read of one robots.txt; RFC 9309 asks for 500 KiB at least
MAX_LINE = 2048
MAX_RULES = 1_000_000  # remembered over all origins
KEEP = 24 * 3600.0  # s that rules are used, the most that RFC 9309 allows
KEEP_FAILURE = 300.0  # s; longest time before an unreachable one is asked for again

_TOKEN = re.compile("[a-z_-]+")
_ESCAPE = re.compile("%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


@dataclass(frozen=True)
class Rule:
    """One Allow or Disallow line."""

    allow: bool
    parts: tuple[str, ...]  # of the path pattern, between the stars
    anchored: bool  # ends with $
    length: int  # of the pattern: the longest one that matches wins

    def matches(self, path: str) -> bool:
        """Whether the pattern matches a normalised path."""
        first, *rest = self.parts
        if not path.startswith(first):
            return False
        position = len(first)
        if not rest:
            return not self.anchored or position == len(path)
        for part in rest[:-1]:
            found = path.find(part, position)
            if found < 0:
                return False
            position = found + len(part)
        if self.anchored:
            return path.endswith(rest[-1]) and len(path) - len(rest[-1]) >= position
        return path.find(rest[-1], position) >= 0


@dataclass(frozen=True)
class RobotRules:
    """The rules of one origin that apply to us. `absent`: there is no robots.txt."""

    rules: tuple[Rule, ...] = ()
    absent: bool = False

    def allows(self, path: str) -> bool:
        """Whether a path with its query may be fetched. Without a rule that matches it may."""
        path = _normal(path)
        matching = [rule for rule in self.rules if rule.matches(path)]
        return max(((rule.length, rule.allow) for rule in matching), default=(0, True))[1]


def parse_robots(text: str, agent: str) -> RobotRules:
    """The rules for an agent: of all groups that name it, else of those for `*`."""
    groups: dict[str, list[Rule]] = {}
    names: list[str] = []
    in_rules = False
    for raw in text.removeprefix("\ufeff").splitlines():
        line = raw.partition("#")[0].strip()
        if len(line) > MAX_LINE:
            continue
        key, sign, value = (part.strip() for part in line.partition(":"))
        key = key.lower()
        if not sign:
            continue
        if key == "user-agent":
            if in_rules:
                names, in_rules = [], False
            token = _TOKEN.match(value.lower())
            name = "*" if value.startswith("*") else token[0] if token else ""
            names.append(name)
            groups.setdefault(name, [])
        elif key in ("allow", "disallow"):
            in_rules = True
            for name in {name for name in names if name in ("*", agent.lower())} if value else ():
                groups[name].append(_rule(key == "allow", value))
    return RobotRules(tuple(groups.get(agent.lower(), groups.get("*", []))))


def _rule(allow: bool, pattern: str) -> Rule:
    normal = re.sub(r"\*+", "*", _normal(pattern))
    anchored = normal.endswith("$")
    return Rule(allow, tuple(normal.removesuffix("$").split("*")), anchored, len(normal))


def _normal(path: str) -> str:
    """One spelling of percent-encoding, so that rules and paths compare octet by octet."""

    def decode(match: re.Match[str]) -> str:
        char = chr(int(match[1], 16))
        return char if char in _UNRESERVED else match[0].upper()

    return _ESCAPE.sub(decode, quote(path, safe="/%:@!$&'()*+,;=~-._?[]|"))


@dataclass
class _Entry:
    answer: Future[RobotRules | FetchFailure]
    until: float = float("inf")
    failures: int = 0  # in a row


class RobotsCache:
    """Rules by origin. Threads share one request in flight; an unreachable one is asked for again with back-off.

    Args:
        read: gets the rules of an origin, raising FetchError where it cannot.
        backoff: s before a failed one is asked for again; doubles.
    """

    def __init__(self, read: Callable[[Target, Deadline], RobotRules], backoff: float) -> None:
        self._read = read
        self._backoff = backoff
        self._entries: dict[str, _Entry] = {}
        self._size = 0  # rules remembered, and one per origin
        self._lock = threading.Lock()

    def rules(self, target: Target, deadline: Deadline) -> RobotRules:
        """The rules for the origin of a target.

        Raises:
            FetchError: as `read` raised it for this or another thread, or `timeout`.
        """
        with self._lock:
            entry = self._entries.get(target.origin)
            asks = entry is None or time.monotonic() >= entry.until
            if entry is None or asks:
                entry = self._remember(target.origin, entry)
        if asks:
            self._ask(entry, target, deadline)
        try:
            answer = entry.answer.result(deadline.left())
        except FutureTimeout:
            raise FetchError("timeout", "robots.txt did not come in time", transient=True) from None
        if isinstance(answer, FetchFailure):
            raise FetchError.again(answer)
        return answer

    def _remember(self, origin: str, old: _Entry | None) -> _Entry:
        if self._size >= MAX_RULES:
            self._entries.clear()
            self._size = 0
        entry = self._entries[origin] = _Entry(Future(), failures=old.failures if old else 0)
        self._size += 1
        return entry

    def _ask(self, entry: _Entry, target: Target, deadline: Deadline) -> None:
        answer: RobotRules | FetchFailure = FetchFailure(target.origin, "unexpected", "robots.txt was not read")
        try:
            answer = self._read(target, deadline)
            with self._lock:
                self._size += len(answer.rules)
        except FetchError as error:
            answer = error.failure(target.origin)
        finally:
            if isinstance(answer, FetchFailure):
                entry.until = time.monotonic() + min(KEEP_FAILURE, self._backoff * 2 ** min(entry.failures, 20))
                entry.failures += 1
            else:
                entry.until = time.monotonic() + KEEP
            entry.answer.set_result(answer)
