"""`Fetcher`: one URL in, its bytes or the reason why not out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from data_prep.fetch.config import FetchConfig
from data_prep.fetch.outcome import Outcome


class Fetcher:
    """Fetches URLs; safe to use from many threads.

    Args:
        config: limits and manners.
        share: processes that fetch at the same time; each takes its part of the limits per host.
    """

    def __init__(self, config: FetchConfig, share: int = 1) -> None:
        raise NotImplementedError

    def fetch(self, url: str) -> Outcome:
        """Fetch one URL. Never raises for what a URL or a server does."""
        raise NotImplementedError

    def close(self) -> None:
        """Close idle connections and end all waiting."""


def fetch_all(fetcher: Fetcher, urls: Iterable[str], threads: int) -> Iterator[Outcome]:
    """Outcomes in the order of `urls`, with bounded look-ahead."""
    raise NotImplementedError
