"""No private address is ever connected to: not by a URL, not by a redirect, not by a name that changes its mind."""

import ipaddress
import random
import socket
import time

import pytest

from data_prep.fetch.address import is_global, parse_url
from data_prep.fetch.outcome import Fetched, FetchError, FetchFailure

NAMES = {
    "example.com": ["93.184.216.34"],
    "localhost": ["127.0.0.1", "::1"],
    "internal.example": ["10.0.0.5"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "zone.example": ["fe80::1%eth0"],
    "metadata.google.internal": ["169.254.169.254"],
    "nowhere.example": [],
    "127.0.0.1.nip.example": ["127.0.0.1"],
}
HOSTILE = [
    # private addresses as they are
    "http://127.0.0.1/",
    "http://127.8.8.8/",
    "http://0.0.0.0/",
    "http://0.1.2.3/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/machine",
    "http://192.0.0.192/opc/v2/",
    "http://198.18.0.1/",
    "http://203.0.113.5/",
    "http://224.0.0.1/",
    "http://239.255.255.250/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://192.88.99.1/",
    "http://127.0.0.1./",
    "http://[::1]/",
    "http://[::]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[ff02::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/",
    "http://[2001:db8::1]/",
    "http://[3fff::1]/",
    # odd spellings of 127.0.0.1 and others
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://0x/",
    "http://00000177.1/",
    "http://127.0.0.1.0x7f/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://127.0.0.%31/",
    "http://8.8.8.08/",
    "http://134744072/",
    # names of private hosts
    "http://localhost/",
    "http://LOCALHOST./",
    "http://internal.example/",
    "http://mapped.example/",
    "http://zone.example/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://nowhere.example/",
    "http://127.0.0.1.nip.example/",
    # users, ports, schemes
    "http://user:secret@example.com/",
    "http://example.com@127.0.0.1/",
    "http://example.com%40127.0.0.1/",
    "http://example.com\\@127.0.0.1/",
    "http://127.0.0.1\\@example.com/",
    "http://example.com:22/",
    "http://example.com:6379/",
    "http://example.com:0/",
    "http://example.com:99999/",
    "http://example.com:80:80/",
    "http://example.com:-80/",
    "http://example.com:٨٠/",
    "file:///etc/passwd",
    "ftp://example.com/x.jpg",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "pipe:cat /etc/passwd",
    "s3://bucket/key",
    "//example.com/x.jpg",
    "example.com/x.jpg",
    "/etc/passwd",
    "",
    # malformed
    "http://",
    "http:///x.jpg",
    "http://exa mple.com/",
    "http://example.com\r\nHost: 127.0.0.1/",
    "http://example.com/\r\nX-Evil: 1",
    "http://example.com/\x00",
    "http://example.com\t/",
    "http://ex\u2028ample.com/",
    "http://[::1/",
    "http://[::1]x/",
    "http://[2606:4700::1111].internal.example/",
    "http://]/",
    "http://a..b/",
    "http://-a.com/",
    "http://" + "a" * 300 + ".com/",
    "http://example.com/" + "a" * 10_000,
    "http://exam\udc80ple.com/",
    "http://xn--/",
    "http://\u212a\u3002../",
    "http://example.com#@127.0.0.1:80\\",
]
SAFE_ALL_THE_SAME = {"http://example.com#@127.0.0.1:80\\"}  # the host is example.com and nothing else


@pytest.mark.parametrize("by_redirect", [False, True])
def test_hostile_urls_reach_nothing_private(internet, make_answer, monkeypatch, by_redirect: bool) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    internet.names.update(NAMES)
    assert len(HOSTILE) >= 100
    reached = set()
    with internet.fetcher() as fetcher:
        for url in HOSTILE:
            if by_redirect:
                location = b"HTTP/1.1 302 Found\r\nLocation: " + url.encode("utf-8", "replace") + b"\r\n"
                internet.site.pages = {"/go": location + b"Content-Length: 0\r\n\r\n"}
                outcome = fetcher.fetch("http://example.com/go")
            else:
                internet.site.pages = {"*": make_answer()}
                outcome = fetcher.fetch(url)
            if isinstance(outcome, Fetched):
                reached.add(url)
            else:
                assert outcome.reason != "unexpected", (url, outcome)
    if by_redirect:  # paths of example.com: the site answers 404 to them
        assert not reached
    else:
        assert reached == SAFE_ALL_THE_SAME
    assert not internet.private()
    assert set(internet.connected) <= {"93.184.216.34"}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1/", "address_private"),
        ("http://2130706433/", "url_invalid"),
        ("http://localhost/", "address_private"),
        ("file:///etc/passwd", "url_scheme"),
        ("http://a:b@example.com/", "url_credentials"),
        ("http://example.com:22/", "url_port"),
        ("http://example.com/\n", "url_invalid"),
        ("http://unknown.example/", "dns_not_found"),
    ],
)
def test_the_reason_says_which_rule(internet, url: str, reason: str) -> None:
    internet.names.update(NAMES)
    with internet.fetcher() as fetcher:
        outcome = fetcher.fetch(url)
    assert isinstance(outcome, FetchFailure)
    assert (outcome.reason, outcome.transient, outcome.url) == (reason, False, url)


def test_rebinding_does_not_matter(internet, make_answer) -> None:
    """A name that turns private between the check and the connection, or between two fetches."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1"]])
    asked = []

    def lookup(host: str) -> list[str]:
        asked.append(host)
        return next(answers)

    internet.lookup = lookup
    internet.site.pages = {"/x": make_answer(b"picture", 200, "Connection: close")}
    with internet.fetcher() as fetcher:
        assert all(isinstance(fetcher.fetch("http://rebind.example/x"), Fetched) for _ in range(3))
    assert asked == ["rebind.example"]
    assert internet.connected == ["93.184.216.34"] * 3
    with internet.fetcher() as fetcher:  # another process asks anew, and refuses
        outcome = fetcher.fetch("http://rebind.example/x")
    assert isinstance(outcome, FetchFailure)
    assert outcome.reason == "address_private"
    assert internet.connected == ["93.184.216.34"] * 3


def test_only_the_global_addresses_of_a_mixed_answer(internet, make_answer) -> None:
    internet.names["mixed.example"] = ["10.0.0.1", "::1", "93.184.216.34"]
    internet.site.pages = {"*": make_answer()}
    with internet.fetcher() as fetcher:
        assert isinstance(fetcher.fetch("http://mixed.example/x"), Fetched)
    assert internet.connected == ["93.184.216.34"]


def test_robots_txt_is_guarded_too(internet, make_answer) -> None:
    internet.names.update(NAMES)
    internet.site.pages = {
        "/robots.txt": make_answer(b"", 302, "Location: http://169.254.169.254/robots.txt"),
        "*": make_answer(),
    }
    with internet.fetcher(robots_txt=True) as fetcher:
        outcome = fetcher.fetch("http://example.com/x")
        private = fetcher.fetch("http://internal.example/x")
    assert isinstance(outcome, FetchFailure)
    assert isinstance(private, FetchFailure)
    assert (outcome.reason, private.reason) == ("robots_unreachable", "address_private")
    assert internet.site.paths() == ["/robots.txt"]
    assert not internet.private()


def test_temporary_failure_of_names_is_transient(internet) -> None:
    def lookup(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    internet.lookup = lookup
    with internet.fetcher() as fetcher:
        outcome = fetcher.fetch("http://example.com/")
    assert isinstance(outcome, FetchFailure)
    assert (outcome.reason, outcome.transient) == ("dns_failed", True)


def test_names_that_hang_end_with_the_deadline(internet) -> None:
    def lookup(host: str) -> list[str]:
        time.sleep(5)
        return ["93.184.216.34"]

    internet.lookup = lookup
    start = time.monotonic()
    with internet.fetcher(deadline=0.5) as fetcher:
        outcome = fetcher.fetch("http://example.com/")
    assert isinstance(outcome, FetchFailure)
    assert (outcome.reason, outcome.transient) == ("dns_failed", True)
    assert time.monotonic() - start < 3


def test_what_is_global_agrees_with_the_registry() -> None:
    for text in ["8.8.8.8", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::1"]:
        assert is_global(ipaddress.ip_address(text)), text
    draw = random.Random(0)
    for _ in range(3000):  # nothing that Python calls private is global to us
        for address in (ipaddress.IPv4Address(draw.getrandbits(32)), ipaddress.IPv6Address(draw.getrandbits(128))):
            assert address.is_global or not is_global(address), address


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("http://Example.COM", "example.com", "/"),
        ("https://example.com:443/a b.jpg?x=1&y=ü#part", "example.com", "/a%20b.jpg?x=1&y=%C3%BC"),
        (" http://bücher.example/ä%20.jpg ", "xn--bcher-kva.example", "/%C3%A4%20.jpg"),
        ("http://under_score.example/%7Euser/[1].jpg", "under_score.example", "/%7Euser/%5B1%5D.jpg"),
        ("http://[2606:4700::1111]/x", "2606:4700::1111", "/x"),
    ],
)
def test_good_urls_are_read(url: str, host: str, path: str) -> None:
    target = parse_url(url, (80, 443))
    assert (target.host, target.path) == (host, path)
    assert parse_url(target.url, (80, 443)) == target


def test_private_switch_opens_ports_and_hosts_but_not_schemes() -> None:
    assert parse_url("http://127.0.0.1:5000/x", None).port == 5000
    with pytest.raises(FetchError):
        parse_url("file:///etc/passwd", None)
