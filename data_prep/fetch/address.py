"""What may be contacted: the strict reading of a URL, and which addresses are global."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, urljoin, urlsplit

from data_prep.fetch.outcome import FetchError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL = 8192  # characters
PORTS = {"http": 80, "https": 443}

# Not `is_global`: what it says differs between versions of Python (192.0.0.192, a metadata service, is global to 3.11).
PRIVATE_V4 = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; 0.0.0.0 reaches the own machine
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, and metadata of one cloud
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host agent, on an address that looks global
        "169.254.0.0/16",  # link-local, and metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
]
# Outside 2000::/3 nothing is routed globally: loopback, ULA, link-local, multicast, v4-mapped and NAT64 all lie there.
GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
PRIVATE_V6 = [
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo (a v4 address inside) and other protocol assignments
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: a v4 address inside
        "3fff::/20",  # documentation
    )
]

_LABELS = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"
_QUERY_SAFE = _PATH_SAFE + "?[]|"


@dataclass(frozen=True)
class Target:
    """A URL read strictly: exactly what is resolved, connected to and asked for."""

    scheme: str  # "http" or "https"
    host: str  # lower case, IDNA; an IPv6 address without brackets
    port: int
    path: str  # with the query, percent-encoded, no fragment

    @property
    def origin(self) -> str:
        """scheme://host[:port], also the start of `url`."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """The Host header: no port where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL in its normal form."""
        return self.origin + self.path


def is_global(address: Address) -> bool:
    """Whether an address is one of the open internet, by the special-purpose registries of IANA."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in PRIVATE_V4)
    return address in GLOBAL_V6 and not any(address in network for network in PRIVATE_V6)


def parse_url(text: str, ports: tuple[int, ...] | None) -> Target:
    """Read a URL strictly.

    Args:
        text: as found in a list; blanks inside the path are allowed, since real lists have them.
        ports: those that may be contacted; None: any.

    Raises:
        FetchError: what is wrong with it. Nothing is guessed or repaired in the host.
    """
    if len(text) > MAX_URL:
        raise FetchError("url_invalid", f"{len(text)} characters (at most {MAX_URL})")
    if _CONTROL.search(text):
        raise FetchError("url_invalid", "control characters")
    try:
        parts = urlsplit(text.strip(" "))
        port = parts.port
        path = quote(parts.path or "/", safe=_PATH_SAFE)
        query = quote(parts.query, safe=_QUERY_SAFE)
    except ValueError as error:  # UnicodeEncodeError of lone surrogates too
        raise FetchError("url_invalid", str(error)) from None
    if parts.scheme not in PORTS:
        raise FetchError("url_scheme", f"scheme {parts.scheme[:20]!r}; only http and https are fetched")
    if "@" in parts.netloc:
        raise FetchError("url_credentials", "user name or password in the URL")
    bracketed = parts.netloc.startswith("[")
    if bracketed and not re.fullmatch(r"\[[^]]*\](:[0-9]*)?", parts.netloc):
        raise FetchError("url_invalid", "characters after the brackets of an address")
    host = _read_host(parts.hostname or "", bracketed)
    if not path.startswith("/"):
        raise FetchError("url_invalid", "a path that does not start with /")
    port = PORTS[parts.scheme] if port is None else port
    if port == 0 or (ports is not None and port not in ports):
        raise FetchError("url_port", f"port {port} is not among the configured {list(ports or ())}")
    return Target(parts.scheme, host, port, f"{path}?{query}" if query else path)


def follow(target: Target, location: str, ports: tuple[int, ...] | None) -> Target:
    """Where a redirect leads, read as strictly as any URL.

    Raises:
        FetchError: see `parse_url`.
    """
    if len(location) > MAX_URL or _CONTROL.search(location):
        raise FetchError("url_invalid", "redirect to a URL that is too long or holds control characters")
    try:
        joined = urljoin(target.url, location.strip(" "))
    except ValueError as error:
        raise FetchError("url_invalid", f"redirect: {error}") from None
    return parse_url(joined, ports)


def _read_host(host: str, bracketed: bool) -> str:
    """A host name or an address in its one canonical spelling."""
    if bracketed:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError as error:
            raise FetchError("url_invalid", f"host: {error}") from None
        if address.scope_id:
            raise FetchError("url_invalid", "host: an address with a zone")
        return str(address)
    host = host.removesuffix(".")
    if not host or len(host) > 253:
        raise FetchError("url_invalid", "no host" if not host else "host of more than 253 characters")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii").lower()
        except UnicodeError as error:
            raise FetchError("url_invalid", f"host: {error}") from None
    if not _LABELS.fullmatch(host):
        raise FetchError("url_invalid", f"host {host[:60]!r}")
    if _NUMERIC.fullmatch(host.rpartition(".")[2]):  # system resolvers read 2130706433, 0x7f.1 and 0177.0.0.1
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise FetchError("url_invalid", f"host {host[:60]!r} is an odd spelling of an address") from None
    return host
