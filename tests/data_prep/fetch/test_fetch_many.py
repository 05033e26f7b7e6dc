"""Many URLs in order, and the ledger of what failed."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.fetch.ahead import fetch_all
from data_prep.fetch.ledger import Entry, FailureLedger
from data_prep.fetch.outcome import Fetched, FetchFailure


def test_order_is_kept(site, make_fetcher) -> None:
    def page(name: str, pause: float):
        return lambda _: [pause, f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\n\r\n{name}".encode()]

    names = [f"/{number}" for number in range(40)]
    site.pages = {name: page(name, 0.05 if number % 5 == 0 else 0.0) for number, name in enumerate(names)}
    urls = [site.url + name for name in names]
    urls[7] = "file:///etc/passwd"
    outcomes = list(fetch_all(make_fetcher(host_concurrency=16), iter(urls), threads=8))
    assert [one.url for one in outcomes] == urls
    assert [isinstance(one, Fetched) for one in outcomes] == [number != 7 for number in range(40)]
    assert list(fetch_all(make_fetcher(), [], threads=2)) == []


def test_look_ahead_is_bounded_by_number(site, make_fetcher, make_answer) -> None:
    site.pages["*"] = make_answer()
    taken = []

    def urls() -> Iterator[str]:
        for number in range(100):
            taken.append(number)
            yield f"{site.url}/{number}"

    outcomes = fetch_all(make_fetcher(), urls(), threads=2, ahead=6)
    for number in range(20):
        next(outcomes)
        assert len(taken) <= number + 6
    outcomes.close()


def test_look_ahead_is_bounded_by_bytes(site, make_fetcher, make_answer) -> None:
    site.pages["*"] = make_answer(bytes(100_000))
    urls = [f"{site.url}/{number}" for number in range(40)]
    outcomes = fetch_all(make_fetcher(), urls, threads=2, ahead=40, buffer=250_000)
    for number in range(1, 41):
        assert isinstance(next(outcomes), Fetched)
        if number < 4:
            time.sleep(0.3)  # time enough for all of them, were it not for the bound
        assert len(site.requests) <= number + 3 + 2  # the buffer's three, and one per thread
    assert list(outcomes) == []


def test_leaving_early_leaves_no_threads(site, make_fetcher, make_answer) -> None:
    site.pages["*"] = make_answer()
    outcomes = fetch_all(make_fetcher(), (f"{site.url}/{number}" for number in range(1000)), threads=4)
    next(outcomes)
    outcomes.close()
    end = time.monotonic() + 5
    while any(thread.name.startswith("fetch_") for thread in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fetch_")]
    assert len(site.requests) < 100


ENTRIES = [
    Entry("b#2", FetchFailure("http://x/2", "timeout", "slow", transient=True)),
    Entry("a#1", FetchFailure("http://x/1", "http_4xx", "status 404", status=404)),
    Entry("a#1", FetchFailure("http://x/0", "throttled", "status 429", transient=True, status=429, retry_after=7.5)),
    Entry("c#3", FetchFailure("http://x/\udc80", "http_4xx", "status 410", status=410)),
]


def test_ledger_round_trip(tmp_path: Path) -> None:
    ledger = FailureLedger(ENTRIES)
    ledger.write(tmp_path / "failures.parquet")
    read = FailureLedger.read(tmp_path / "failures.parquet")
    assert len(read) == 4
    assert list(read)[:3] == [ENTRIES[2], ENTRIES[1], ENTRIES[0]]
    assert read.counts() == {"http_4xx": 2, "throttled": 1, "timeout": 1}
    assert [entry.row for entry in read.select(only="transient")] == ["a#1", "b#2"]
    assert [entry.row for entry in read.select(only="permanent")] == ["a#1", "c#3"]
    assert len(read.select()) == 4
    assert FailureLedger(reversed(ENTRIES)).to_bytes() == ledger.to_bytes()


def test_ledger_after_a_retry() -> None:
    ledger = FailureLedger(ENTRIES)
    ledger.add("b#2", FetchFailure("http://x/2", "http_4xx", "status 404", status=404))
    ledger.resolve("a#1")
    ledger.resolve("unknown")
    assert ledger.counts() == {"http_4xx": 2}
    assert not ledger.select(only="transient")
    assert len(FailureLedger.from_bytes(FailureLedger().to_bytes())) == 0


def test_other_files_are_no_ledger(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"x\.parquet: not a ledger"):
        FailureLedger.read(file)
