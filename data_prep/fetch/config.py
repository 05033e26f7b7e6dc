"""How pictures are fetched: what is refused, how long and how much is waited for, and how polite we are."""

from __future__ import annotations

from pydantic import Field

from dreamline.config import Config

OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex", "noml")


class FetchConfig(Config):
    """Limits and manners of a `Fetcher`. The defaults are safe for lists of URLs that strangers wrote."""

    agent: str = Field(
        "dreamline", pattern="^[A-Za-z_-]{1,64}$", description="our name: in User-Agent, and what robots rules address"
    )
    contact: str | None = Field(
        None, pattern="^[!-~]{1,200}$", description="URL or mail address in User-Agent, where site owners find you"
    )

    max_bytes: int = Field(50_000_000, ge=1, description="largest body; more is refused while it streams")
    max_header_bytes: int = Field(65_536, ge=1024, description="largest response head")
    max_redirects: int = Field(3, ge=0, le=20, description="redirects followed, each checked like a new URL")
    connect_timeout: float = Field(10.0, gt=0, description="s for one address to accept, and again for TLS")
    read_timeout: float = Field(15.0, gt=0, description="s without a byte from the server")
    deadline: float = Field(60.0, gt=0, description="s for one attempt as a whole: names, TLS, redirects, heads, body")

    host_rate: float = Field(10.0, ge=0, description="requests per second to one host, over the whole job; 0: no limit")
    host_concurrency: int = Field(8, ge=1, description="requests at once to one host, over the whole job")

    retries: int = Field(2, ge=0, le=10, description="attempts after the first, for transient failures only")
    backoff: float = Field(1.0, ge=0, description="s before the first retry; doubles, with jitter")
    max_wait: float = Field(60.0, ge=0, description="s; longest back-off. A longer Retry-After ends the attempts")

    robots_txt: bool = Field(True, description="ask robots.txt of every host, and obey it")
    opt_out_headers: bool = Field(True, description="refuse what X-Robots-Tag or TDM-Reservation reserves")
    opt_outs: tuple[str, ...] = Field(OPT_OUTS, description="X-Robots-Tag words that mean: not for training")

    ports: tuple[int, ...] = Field((80, 443), description="ports that may be contacted")
    ca_file: str | None = Field(None, description="PEM file of authorities to trust instead of the system's")
    allow_private: bool = Field(
        False, description="allow private hosts and any port. Only for tests and for lists that you wrote yourself"
    )

    @property
    def user_agent(self) -> str:
        """The User-Agent header."""
        return f"{self.agent}/1.0 (+{self.contact})" if self.contact else f"{self.agent}/1.0"
