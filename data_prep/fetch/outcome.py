"""What fetching one URL ends in: `Fetched`, or a `FetchFailure` of a known class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Reason = Literal[
    "url_invalid",  # malformed, control characters, no host, odd spellings of addresses
    "url_scheme",  # not http(s)
    "url_credentials",  # user:password@
    "url_port",  # a port that is not in the configuration
    "address_private",  # no global address among those of the host
    "dns_not_found",
    "dns_failed",  # the resolver did not answer: transient
    "connect_failed",  # transient only where the network is unreachable
    "tls_failed",
    "timeout",  # of connecting, reading or the deadline: transient
    "interrupted",  # connection reset, or ended before the body did: transient
    "http_invalid",  # not HTTP/1, head too large, contradicting lengths
    "http_4xx",
    "http_5xx",  # transient
    "http_other",  # a status that is neither success, nor redirect, nor error
    "throttled",  # 408, 425, 429: transient
    "redirects",  # too many, a loop, or one without a target
    "too_large",
    "encoded",  # a Content-Encoding that we did not ask for
    "html",  # a page instead of a picture
    "robots_txt",
    "robots_unreachable",  # robots.txt could not be read, so nothing may be fetched: as transient as its cause
    "opt_out",  # X-Robots-Tag or TDM-Reservation
    "unexpected",  # a fault of ours
]


@dataclass(frozen=True)
class Fetched:
    """A body that arrived whole."""

    url: str  # as asked for
    final_url: str  # after redirects
    status: int
    content: bytes
    content_type: str | None
    robots: str | None  # "allowed" or "absent" by robots.txt; None where it was not asked
    opt_out: str | None  # the header that reserves the picture, where the configuration fetches it all the same

    @property
    def num_bytes(self) -> int:
        """Length of the body."""
        return len(self.content)


@dataclass(frozen=True)
class FetchFailure:
    """Why nothing was fetched. A transient failure may go away by itself; the others will not."""

    url: str  # as asked for
    reason: Reason
    detail: str
    transient: bool = False
    status: int | None = None  # of the response, where there was one
    retry_after: float | None = None  # s, where the server said so


Outcome: TypeAlias = Fetched | FetchFailure


class FetchError(Exception):
    """A `FetchFailure` on its way up, before it knows its URL."""

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        transient: bool = False,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail
        self.transient = transient
        self.status = status
        self.retry_after = retry_after

    def failure(self, url: str) -> FetchFailure:
        """The outcome for a URL."""
        return FetchFailure(url, self.reason, self.detail[:500], self.transient, self.status, self.retry_after)

    @classmethod
    def again(cls, failure: FetchFailure) -> FetchError:
        """The error of a failure that is remembered."""
        return cls(
            failure.reason,
            failure.detail,
            transient=failure.transient,
            status=failure.status,
            retry_after=failure.retry_after,
        )
