"""Many URLs at once, in order."""

from __future__ import annotations

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
    held = 0
    lock = threading.Lock()

    def run(url: str) -> Outcome:
        nonlocal held
        outcome = fetcher.fetch(url)
        if isinstance(outcome, Fetched):
            with lock:
                held += outcome.num_bytes
        return outcome

    rest = iter(urls)
    waiting: deque[Future[Outcome]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="fetch")
    try:
        more = True
        while True:
            while more and (not waiting or (len(waiting) < ahead and held < buffer)):
                url = next(rest, None)
                if url is None:
                    more = False
                else:
                    waiting.append(pool.submit(run, url))
            if not waiting:
                return
            outcome = waiting.popleft().result()
            if isinstance(outcome, Fetched):
                with lock:
                    held -= outcome.num_bytes
            yield outcome
            del outcome  # nothing but the consumer holds the body
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
