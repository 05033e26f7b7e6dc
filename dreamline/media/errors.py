"""`MediaError`: the one way in which a picture is refused, with a short reason that counts are kept by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

REASONS = {
    "empty": "the file has no bytes",
    "too_many_bytes": "the file is larger than max_bytes",
    "format": "the first bytes are of no accepted format, whatever the name says",
    "unreadable": "the header cannot be parsed",
    "truncated": "the file ends before the picture does",
    "corrupt": "the picture's data are damaged",
    "metadata": "metadata that are larger, or unpack to more, than is allowed",
    "too_many_pixels": "more pixels than max_pixels, or a side that no JPEG can hold",
    "too_many_scans": "a JPEG with more scans than max_scans",
    "animated": "several frames or pages, and animated is 'reject'",
    "too_small": "shorter side under min_side, or upscaling beyond the bound",
    "aspect": "longer side over shorter side exceeds max_aspect",
    "mode": "samples without a stated range (32-bit, float) or a colour model that is not supported",
    "memory": "decoding ran out of memory",
    "crop_too_large": "no bucket without cropping away more than max_crop",
    "geometry_differs": "source and target of an edit differ in aspect",
}
"""Every reason a picture is refused for, and what it means."""

_TOLD_BY_MESSAGE = {
    "truncated": "truncated",
    "premature end": "truncated",
    "max_text": "metadata",  # Pillow's bound on what PNG text and profiles unpack to
    "decompression bomb": "too_many_pixels",
    "insufficient memory": "memory",
}


class MediaError(ValueError):
    """A picture that is refused.

    Attributes:
        reason: a key of `REASONS`.
        detail: what was found, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str]]:
        return type(self), (self.reason, self.detail)  # crosses processes


@contextmanager
def refusing(reason: str) -> Iterator[None]:
    """Turn whatever an image library raises on hostile bytes into a `MediaError`, of `reason` unless it says better.

    The libraries raise some twenty types (SyntaxError and struct.error among them), so nothing narrower would do;
    therefore only calls into libraries belong inside.
    """
    try:
        yield
    except MediaError:
        raise
    except MemoryError as error:
        raise MediaError("memory", str(error) or "MemoryError") from error
    except Exception as error:
        said = str(error).lower()
        told = next((told for words, told in _TOLD_BY_MESSAGE.items() if words in said), reason)
        raise MediaError(told, f"{type(error).__name__}: {error}"[:300]) from error
