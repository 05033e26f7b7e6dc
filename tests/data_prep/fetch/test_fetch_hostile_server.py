"""Servers that lie, drip, never end or answer with too much: each ends in bounded time with a reason."""

import gzip
import itertools
import time
from collections.abc import Iterable, Iterator

import pytest

from data_prep.fetch.outcome import Fetched, FetchFailure

HEAD = b"HTTP/1.1 200 OK\r\n"


def drip(text: bytes, pause: float = 0.15) -> Iterator[bytes | float]:
    for byte in text:
        yield bytes([byte])
        yield pause


def endless(piece: bytes) -> Iterator[bytes]:
    while True:
        yield piece


def then(*parts: Iterable[bytes | float]) -> Iterator[bytes | float]:
    return itertools.chain(*parts)


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW = [
    lambda _: drip(HEAD * 50),
    lambda _: then([HEAD, b"Content-Length: 1000\r\n\r\n"], drip(b"a" * 1000)),
    lambda _: then([CHUNKED], drip(b"1\r\na\r\n" * 100)),
    lambda _: then([HEAD, b"\r\n"], drip(b"a" * 100)),
    lambda _: drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 4),
    lambda _: [10.0],
]
BIG = b"a" * 65536
BAD = [
    # endless
    (lambda _: then([HEAD, b"\r\n"], endless(BIG)), "too_large", False),
    (lambda _: then([CHUNKED], endless(b"10000\r\n" + BIG + b"\r\n")), "too_large", False),
    (lambda _: then([HEAD], endless(b"X-A: " + b"a" * 1000 + b"\r\n")), "http_invalid", False),
    (lambda _: endless(b"a" * 4096), "http_invalid", False),
    (lambda _: endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 100), "http_invalid", False),
    (lambda _: then([CHUNKED, b"0\r\n"], endless(b"a: b\r\n" * 1000)), "http_invalid", False),
    (lambda _: then([CHUNKED], endless(b"1;" + b"e" * 1000 + b"\r\na\r\n")), "http_invalid", False),
    (lambda _: then([CHUNKED], endless(BIG)), "http_invalid", False),
    # lies
    (lambda _: [HEAD, b"Content-Length: 100\r\n\r\nshort"], "interrupted", True),
    (lambda _: [HEAD, b"Content-Length: 99999999999\r\n\r\n"], "too_large", False),
    (lambda _: [HEAD, b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n1234567"], "http_invalid", False),
    (lambda _: [HEAD, b"Content-Length: -5\r\n\r\n12345"], "http_invalid", False),
    (lambda _: [HEAD, b"Content-Length: 1" + b"0" * 400 + b"\r\n\r\n12345"], "http_invalid", False),
    (lambda _: [CHUNKED, b"zz\r\nab\r\n"], "http_invalid", False),
    (lambda _: [CHUNKED, b"-5\r\nabcde\r\n"], "http_invalid", False),
    (lambda _: [CHUNKED, b"2\r\nabcd\r\n0\r\n\r\n"], "http_invalid", False),
    (lambda _: [CHUNKED, b"5\r\nab"], "interrupted", True),
    (lambda _: [HEAD, b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"], "http_invalid", False),
    # noise
    (lambda _: [b""], "interrupted", True),
    (lambda _: [b"HTTP/1.1 200"], "interrupted", True),
    (lambda _: [b"SSH-2.0-OpenSSH_9.6\r\n\r\n"], "http_invalid", False),
    (lambda _: [b"HTTP/2 200 OK\r\n\r\n"], "http_invalid", False),
    (lambda _: [b"HTTP/1.1 xyz OK\r\n\r\n"], "http_invalid", False),
    (lambda _: [bytes(range(256)) * 16 + b"\n\n"], "http_invalid", False),
    # answers that are no picture
    (lambda _: [b"HTTP/1.1 999 What\r\n\r\n"], "http_5xx", True),
    (lambda _: [b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\na"], "http_other", False),
    (lambda _: [b"HTTP/1.1 404 No\r\n\r\n"], "http_4xx", False),
    (lambda _: [HEAD, b"Content-Type: Text/HTML; charset=x\r\n\r\n<html>"], "html", False),
]


@pytest.mark.parametrize("number", range(len(SLOW)))
def test_slow_servers_hold_nobody_beyond_the_deadline(site, make_fetcher, number: int) -> None:
    site.pages["/x"] = SLOW[number]
    start = time.monotonic()
    outcome = make_fetcher(deadline=1, read_timeout=0.8).fetch(f"{site.url}/x")
    assert isinstance(outcome, FetchFailure)
    assert (outcome.reason, outcome.transient) == ("timeout", True), outcome
    assert time.monotonic() - start < 3  # slack for a busy machine; the scripts take 10 s and more


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_servers(site, make_fetcher, number: int) -> None:
    site.pages["/x"], reason, transient = BAD[number]
    outcome = make_fetcher(max_bytes=500_000).fetch(f"{site.url}/x")
    assert isinstance(outcome, FetchFailure)
    assert (outcome.reason, outcome.transient) == (reason, transient), outcome


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "x-unknown"])
def test_coded_bodies_are_refused_unread(site, make_fetcher, make_answer, coding: str) -> None:
    bomb = gzip.compress(bytes(2_000_000))
    site.pages["/x"] = make_answer(bomb, 200, f"Content-Encoding: {coding}")
    outcome = make_fetcher().fetch(f"{site.url}/x")
    assert isinstance(outcome, FetchFailure)
    assert outcome.reason == "encoded"
    assert "Accept-Encoding: identity\r\n" in site.requests[0][2]


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (HEAD + b"Content-Length: 3\r\n\r\nabc", b"abc"),
        (HEAD + b"Content-Length: 3, 3\r\n\r\nabcd", b"abc"),
        (HEAD + b"\r\nto the end", b"to the end"),
        (b"HTTP/1.0 200 OK\nContent-Length: 3\n\nabc", b"abc"),
        (CHUNKED + b"3;x=y\r\nabc\r\n0a\r\n0123456789\r\n0\r\nT: 1\r\n\r\n", b"abc0123456789"),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + HEAD + b"Content-Length: 3\r\n\r\nabc", b"abc"),
        (HEAD + b"No colon here\r\nX-Folded: a\r\n b\r\nContent-Length : 3\r\n\r\nabc", b"abc"),
        (HEAD + b"Content-Length: 0\r\n\r\n", b""),
        (HEAD + b"Content-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
    ],
)
@pytest.mark.parametrize("cut_up", [False, True])
def test_good_answers_however_they_are_framed(site, make_fetcher, raw: bytes, body: bytes, cut_up: bool) -> None:
    pieces = [raw[at : at + 7] for at in range(0, len(raw), 7)] if cut_up else [raw]
    site.pages["/x"] = lambda _: (part for piece in pieces for part in (piece, 0.001))
    outcome = make_fetcher().fetch(f"{site.url}/x")
    assert isinstance(outcome, Fetched), outcome
    assert (outcome.content, outcome.num_bytes) == (body, len(body))


def test_tls_that_never_answers_ends_in_time(site, make_fetcher) -> None:
    start = time.monotonic()
    outcome = make_fetcher(connect_timeout=1).fetch(f"https://127.0.0.1:{site.port}/x")
    assert isinstance(outcome, FetchFailure)
    assert outcome.reason == "timeout"
    assert time.monotonic() - start < 3


def test_refused_connection_is_final(make_fetcher) -> None:
    outcome = make_fetcher().fetch("http://127.0.0.1:1/x")
    assert isinstance(outcome, FetchFailure)
    assert (outcome.reason, outcome.transient) == ("connect_failed", False)


def test_redirects(site, make_fetcher, make_answer) -> None:
    site.pages = {
        "/1": make_answer(b"", 301, "Location: /2"),
        "/2": make_answer(b"moved", 302, "Location: 3?q=a b"),
        "/3?q=a%20b": make_answer(b"", 308, f"Location: {site.url}/x#y"),
        "/x": make_answer(b"here", 200, "Content-Type: image/png"),
        "/utf8": make_answer(b"", 302, "Location: /\u00fc"),
        "/%C3%BC": make_answer(b"umlaut"),
        "/0": make_answer(b"", 307, "Location: /1"),
        "/loop": make_answer(b"", 302, "Location: /pool"),
        "/pool": make_answer(b"", 302, "Location: /loop"),
        "/none": make_answer(b"", 302),
        "/file": make_answer(b"", 302, "Location: file:///etc/passwd"),
        "/user": make_answer(b"", 302, f"Location: http://a:b@127.0.0.1:{site.port}/x"),
    }
    fetcher = make_fetcher(max_redirects=3)
    outcome = fetcher.fetch(f"{site.url}/1")
    assert isinstance(outcome, Fetched)
    assert (outcome.content, outcome.final_url, outcome.content_type) == (b"here", f"{site.url}/x", "image/png")
    assert fetcher.fetch(f"{site.url}/utf8").content == b"umlaut"
    assert site.num_connections == 1  # bodies that came along do not cost the connection
    reasons = [fetcher.fetch(site.url + path).reason for path in ("/0", "/loop", "/none", "/file", "/user")]
    assert reasons == ["redirects", "redirects", "redirects", "url_scheme", "url_credentials"]


def test_connections_are_kept_and_stale_ones_replaced(site, make_fetcher, make_answer) -> None:
    site.pages["/x"] = make_answer()
    fetcher = make_fetcher()
    for _ in range(5):
        assert isinstance(fetcher.fetch(f"{site.url}/x"), Fetched)
    assert site.num_connections == 1
    site.pages["/y"] = lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]  # then closes without a word
    for _ in range(3):
        assert isinstance(fetcher.fetch(f"{site.url}/y"), Fetched)
    assert isinstance(fetcher.fetch(f"{site.url}/x"), Fetched)


def test_bytes_after_the_body_are_not_the_next_answer(site, make_fetcher, make_answer) -> None:
    site.pages = {"/x": make_answer(b"first") + make_answer(b"smuggled"), "/y": make_answer(b"second")}
    fetcher = make_fetcher()
    assert [fetcher.fetch(site.url + path).content for path in ("/x", "/y")] == [b"first", b"second"]
