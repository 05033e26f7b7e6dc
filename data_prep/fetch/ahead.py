"""Many URLs at once, in order."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from data_prep.fetch.fetcher import Fetcher
from data_prep.fetch.outcome import Fetched, Outcome

BUFFER = 256 * 2**20  # bytes fetched and not yet taken, beyond which no further fetch starts


def fetch_all(
    fetcher: Fetcher, urls: Iterable[str], threads: int, ahead: int | None = None, buffer: int = BUFFER
) -> Iterator[Outcome]:
    """Outcomes in the order of `urls`.

    Memory is bounded by `buffer` plus `threads` bodies. A list that is sorted by host is limited by the rate of one
    host: shuffle it.

    Args:
        fetcher: shared by the threads.
        urls: read lazily.
        threads: fetches at once.
        ahead: URLs begun before the first outcome is taken; four per thread by default.
        buffer: bytes.
    """
    ahead = max(threads, ahead or 4 * threads)
    room = threading.Condition()
    held = 0  # bytes fetched and not yet taken
    awaited = 0  # number of the URL whose outcome is taken next: it is fetched in any case
    left = False

    def run(number: int, url: str) -> Outcome:
        nonlocal held
        with room:
            room.wait_for(lambda: left or held < buffer or number <= awaited)
        outcome = fetcher.fetch(url)
        with room:
            held += outcome.num_bytes if isinstance(outcome, Fetched) else 0
        return outcome

    numbered = enumerate(urls)
    waiting: deque[Future[Outcome]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fetch")
    try:
        while True:
            for number, url in itertools.islice(numbered, ahead - len(waiting)):
                waiting.append(pool.submit(run, number, url))
            if not waiting:
                return
            outcome = waiting.popleft().result()
            with room:
                held -= outcome.num_bytes if isinstance(outcome, Fetched) else 0
                awaited += 1
                room.notify_all()
            yield outcome
            del outcome  # nothing but the consumer holds the body
    finally:
        with room:
            left = True
            room.notify_all()
        pool.shutdown(wait=False, cancel_futures=True)
