"""What the headers of an answer say against use for training."""

from __future__ import annotations

from collections.abc import Collection, Sequence

# directives of X-Robots-Tag with a value, which look like the name of an agent
VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


def read_opt_out(robots_tags: Sequence[str], tdm: str | None, agent: str, words: Collection[str]) -> str | None:
    """The reservation that applies to us, or None.

    X-Robots-Tag holds directives separated by commas; `name: directive` addresses it, and what follows in the same
    header, to one agent. `none` means noindex (and nofollow). TDM-Reservation is `1` where rights are reserved
    (W3C TDMRep).

    Args:
        robots_tags: values of all X-Robots-Tag headers.
        tdm: value of TDM-Reservation.
        agent: our name.
        words: directives that mean: not for training.
    """
    for value in robots_tags:
        addressed = True
        for part in value.lower().split(","):
            name, sign, rest = part.partition(":")
            name = name.strip()
            if sign and name not in VALUED:
                addressed = name in ("", "*", agent.lower())
                name = rest.strip()
            meaning = "noindex" if name == "none" else name
            if addressed and meaning in words:
                return f"X-Robots-Tag: {name}"
    if tdm is not None and tdm.strip() == "1":
        return "TDM-Reservation: 1"
    return None
