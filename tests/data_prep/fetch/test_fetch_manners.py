"""Robots, opt-outs, rates and retries."""

import threading
import time

import pytest

from data_prep.fetch.optout import read_opt_out
from data_prep.fetch.outcome import Fetched, FetchFailure
from data_prep.fetch.robots import parse_robots
from dreamline.config import ConfigError

WORDS = ("noai", "noimageai", "noindex", "noimageindex", "noml")


@pytest.mark.parametrize(
    ("tags", "tdm", "expected"),
    [
        ([], None, None),
        (["all"], "0", None),
        (["noai"], None, "X-Robots-Tag: noai"),
        (["NoImageAI , nofollow"], None, "X-Robots-Tag: noimageai"),
        (["nofollow", "noarchive, NOINDEX"], None, "X-Robots-Tag: noindex"),
        (["none"], None, "X-Robots-Tag: none"),
        (["noml"], None, "X-Robots-Tag: noml"),
        (["dreamline: noai"], None, "X-Robots-Tag: noai"),
        (["Dreamline: nofollow, noai"], None, "X-Robots-Tag: noai"),
        (["*: noindex"], None, "X-Robots-Tag: noindex"),
        (["otherbot: noindex"], None, None),
        (["otherbot: nofollow, noindex"], None, None),
        (["otherbot: noindex, dreamline: noai"], None, "X-Robots-Tag: noai"),
        (["otherbot: noindex", "noai"], None, "X-Robots-Tag: noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], None, "X-Robots-Tag: noai"),
        (["max-snippet: 10, noimageindex"], None, "X-Robots-Tag: noimageindex"),
        ([""], " 1 ", "TDM-Reservation: 1"),
    ],
)
def test_opt_outs(tags: list[str], tdm: str | None, expected: str | None) -> None:
    assert read_opt_out(tags, tdm, "dreamline", WORDS) == expected


def test_opt_outs_are_obeyed_or_recorded(site, make_fetcher, make_answer) -> None:
    site.pages = {
        "/ai": make_answer(b"x", 200, "X-Robots-Tag: noai"),
        "/tdm": make_answer(b"x", 200, "tdm-reservation: 1"),
        "/free": make_answer(),
    }
    obeying, recording = make_fetcher(), make_fetcher(opt_out_headers=False)
    for path in ("/ai", "/tdm"):
        outcome = obeying.fetch(site.url + path)
        assert isinstance(outcome, FetchFailure)
        assert (outcome.reason, outcome.transient) == ("opt_out", False)
    assert recording.fetch(f"{site.url}/ai").opt_out == "X-Robots-Tag: noai"
    assert obeying.fetch(f"{site.url}/free").opt_out is None


ROBOTS = """\ufeff# rules
User-agent: *
Disallow: /

user-agent: OtherBot
User-Agent: Dreamline/2.0
Disallow: /private
Allow: /private/open
Crawl-delay: 5
Disallow: /*.gif$
Disallow: /a*b*c
Disallow: /%7Euser/%c3%bc
Sitemap: https://x/sitemap.xml
Disallow:

User-agent: dreamline
Disallow: /q?x=
Allow: /same
Disallow: /same
"""


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", True),
        ("/private", False),
        ("/privately/x", False),
        ("/private/open/x", True),
        ("/x.gif", False),
        ("/x.gif?y", True),
        ("/axxbyyczz", False),
        ("/ac", True),
        ("/~user/ü", False),
        ("/~user/u", True),
        ("/q?x=1", False),
        ("/q?y=1", True),
        ("/same", True),
    ],
)
def test_robots_rules(path: str, allowed: bool) -> None:
    assert parse_robots(ROBOTS, "dreamline").allows(path) == allowed


def test_robots_groups() -> None:
    assert not parse_robots(ROBOTS, "stranger").allows("/x")
    assert parse_robots("", "dreamline").allows("/x")
    assert parse_robots("User-agent: *\nDisallow:", "dreamline").allows("/x")
    assert parse_robots("User-agent: *\nDisallow: /\nUser-agent: dreamline\nAllow: /", "dreamline").allows("/x")
    assert not parse_robots("User-agent: a\nUser-agent: *\nDisallow: /", "dreamline").allows("/x")
    assert parse_robots("Disallow: /", "dreamline").allows("/x")  # a rule of no group
    stars = parse_robots("User-agent: *\nDisallow: /" + "*a" * 900 + "$", "dreamline")
    start = time.monotonic()
    assert stars.allows("/" + "a" * 800)
    assert time.monotonic() - start < 0.5


@pytest.mark.parametrize(
    ("robots", "reason", "transient"),
    [
        ((b"User-agent: *\nDisallow: /x", 200), "robots_txt", False),
        ((b"User-agent: *\nDisallow: /y", 200), None, False),
        ((b"", 404), None, False),
        ((b"", 403), None, False),
        ((b"", 429), "robots_unreachable", True),
        ((b"", 500), "robots_unreachable", True),
        ((b"", 503), "robots_unreachable", True),
    ],
)
def test_robots_of_a_site(site, make_fetcher, make_answer, robots, reason: str | None, transient: bool) -> None:
    site.pages = {"/robots.txt": make_answer(*robots), "/x": make_answer()}
    fetcher = make_fetcher(robots_txt=True)
    outcomes = [fetcher.fetch(f"{site.url}/x") for _ in range(3)]
    if reason is None:
        assert [one.robots for one in outcomes] == ["allowed" if robots[1] == 200 else "absent"] * 3
        assert site.paths() == ["/robots.txt", "/x", "/x", "/x"]  # asked once
    else:
        assert {(one.reason, one.transient) for one in outcomes} == {(reason, transient)}
        assert "/x" not in site.paths()


def test_robots_that_do_not_answer(site, make_fetcher, make_answer) -> None:
    site.pages = {"/robots.txt": lambda _: [5.0], "/x": make_answer()}
    outcome = make_fetcher(robots_txt=True, read_timeout=0.5).fetch(f"{site.url}/x")
    assert isinstance(outcome, FetchFailure)
    assert (outcome.reason, outcome.transient) == ("robots_unreachable", True)


def test_large_robots_are_read_in_part_and_redirects_followed(site, make_fetcher, make_answer) -> None:
    rules = b"User-agent: *\nDisallow: /x\n" + b"# filler\n" * 200_000
    site.pages = {"/robots.txt": make_answer(b"", 301, "Location: /r"), "/r": make_answer(rules), "*": make_answer()}
    fetcher = make_fetcher(robots_txt=True)
    assert fetcher.fetch(f"{site.url}/x").reason == "robots_txt"
    assert isinstance(fetcher.fetch(f"{site.url}/y"), Fetched)


def test_robots_of_a_redirects_target_count(site, make_fetcher, make_answer) -> None:
    site.pages = {
        "/robots.txt": make_answer(b"User-agent: *\nDisallow: /secret"),
        "/x": make_answer(b"", 302, "Location: /secret/y"),
        "*": make_answer(),
    }
    assert make_fetcher(robots_txt=True).fetch(f"{site.url}/x").reason == "robots_txt"
    assert site.paths() == ["/robots.txt", "/x"]


def test_threads_share_one_request_for_robots(site, make_fetcher, make_answer) -> None:
    site.pages = {"/robots.txt": lambda _: [0.2, make_answer(b"")], "*": make_answer()}
    fetcher = make_fetcher(robots_txt=True)
    outcomes = []
    threads = [threading.Thread(target=lambda n=n: outcomes.append(fetcher.fetch(f"{site.url}/{n}"))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, Fetched) for one in outcomes) == 8
    assert site.paths().count("/robots.txt") == 1


def test_flaky_servers_are_asked_again(site, make_fetcher, make_answer) -> None:
    def flaky(nth: int) -> list[bytes]:
        return [make_answer(b"", 503) if nth == 0 else b"" if nth == 1 else make_answer(b"at last")]

    site.pages = {"/x": flaky, "/gone": make_answer(b"", 410), "/down": make_answer(b"", 502)}
    fetcher = make_fetcher(retries=2)
    assert fetcher.fetch(f"{site.url}/x").content == b"at last"
    assert site.paths().count("/x") == 3
    gone, down = fetcher.fetch(f"{site.url}/gone"), fetcher.fetch(f"{site.url}/down")
    assert (gone.reason, gone.status, gone.transient) == ("http_4xx", 410, False)
    assert (down.reason, down.status, down.transient) == ("http_5xx", 502, True)
    assert site.paths().count("/gone") == 1
    assert site.paths().count("/down") == 3


def test_flaky_robots_are_asked_again(site, make_fetcher, make_answer) -> None:
    site.pages = {
        "/robots.txt": lambda nth: [make_answer(b"", 503 if nth == 0 else 200)],
        "/x": make_answer(),
    }
    assert isinstance(make_fetcher(retries=3, robots_txt=True, backoff=0.1).fetch(f"{site.url}/x"), Fetched)


def test_retry_after_is_honoured_up_to_a_cap(site, make_fetcher, make_answer) -> None:
    site.pages = {
        "/x": lambda nth: [make_answer(b"", 429, "Retry-After: 1") if nth == 0 else make_answer()],
        "/later": make_answer(b"", 429, "Retry-After: 3600"),
    }
    fetcher = make_fetcher(retries=1, max_wait=1.5)
    assert isinstance(fetcher.fetch(f"{site.url}/x"), Fetched)
    first, second = (moment for moment, path, _ in site.requests if path == "/x")
    assert second - first >= 0.99
    outcome = fetcher.fetch(f"{site.url}/later")
    assert (outcome.reason, outcome.transient, outcome.retry_after) == ("throttled", True, 3600)
    assert site.paths().count("/later") == 1
    start = time.monotonic()
    fetcher.fetch(f"{site.url}/x")  # the whole host is left in peace, as long as we are ready to wait
    assert time.monotonic() - start > 1.0


@pytest.mark.parametrize(("rate", "share", "expected"), [(10, 1, 10), (20, 2, 10)])
def test_rate_of_a_host(site, make_fetcher, make_answer, rate: float, share: int, expected: float) -> None:
    site.pages["*"] = make_answer()
    fetcher = make_fetcher(share=share, host_rate=rate)
    threads = [threading.Thread(target=lambda: [fetcher.fetch(f"{site.url}/x") for _ in range(3)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = sorted(moment for moment, _, _ in site.requests)
    assert len(times) == 12
    measured = 11 / (times[-1] - times[0])
    assert 0.2 * expected < measured <= 1.1 * expected, measured  # a busy machine may be slower, never faster


@pytest.mark.parametrize(("share", "most"), [(1, 4), (2, 2), (100, 1)])
def test_concurrency_of_a_host(site, make_fetcher, make_answer, share: int, most: int) -> None:
    site.pages["*"] = lambda _: [0.05, make_answer()]
    fetcher = make_fetcher(share=share, host_concurrency=4)
    threads = [threading.Thread(target=fetcher.fetch, args=(f"{site.url}/{n}",)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.max_busy <= most
    assert len(site.requests) == 12


def test_agent_and_environment(site, make_fetcher, make_answer, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    site.pages["*"] = make_answer()
    outcome = make_fetcher(agent="our-bot", contact="https://example.org/bot").fetch(f"{site.url}/x")
    assert isinstance(outcome, Fetched)
    head = site.requests[0][2]
    assert "User-Agent: our-bot/1.0 (+https://example.org/bot)\r\n" in head
    assert f"Host: 127.0.0.1:{site.port}\r\n" in head


def test_closing_ends_the_waiting(site, make_fetcher, make_answer) -> None:
    site.pages["*"] = make_answer()
    fetcher = make_fetcher(host_rate=0.01)
    fetcher.fetch(f"{site.url}/x")
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(fetcher.fetch(f"{site.url}/x")))
    thread.start()
    time.sleep(0.1)
    fetcher.close()
    thread.join(5)
    assert [(one.reason, one.transient) for one in outcomes] == [("interrupted", True)]


def test_bad_settings_name_the_key(make_fetcher) -> None:
    with pytest.raises(ConfigError, match=r"fetch\.ca_file: /no/such\.pem"):
        make_fetcher(ca_file="/no/such.pem")
    with pytest.raises(ValueError, match="share is 0"):
        make_fetcher(share=0)
