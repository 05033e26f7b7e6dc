"""`MediaError`: the one way in which a picture is refused, with a short reason that counts are kept by."""

from __future__ import annotations

REASONS = {
    "empty": "the file has no bytes",
    "too_many_bytes": "the file is larger than max_bytes",
    "format": "the first bytes are of no accepted format, whatever the name says",
    "unreadable": "the header or the picture cannot be parsed",
    "truncated": "the file ends before the picture does",
    "corrupt": "the picture's data are damaged",
    "metadata": "metadata that unpack to more than is allowed",
    "too_many_pixels": "more pixels than max_pixels",
    "too_many_scans": "a progressive JPEG with more scans than max_scans",
    "animated": "several frames or pages, and animated is 'reject'",
    "too_small": "shorter side under min_side, or upscaling beyond the bound",
    "aspect": "longer side over shorter side exceeds max_aspect",
    "mode": "samples whose range the file does not state (32-bit or float)",
    "memory": "decoding ran out of memory",
    "crop_too_large": "no bucket without cropping away more than max_crop",
    "geometry_differs": "source and target of an edit differ in aspect",
}
"""Every reason a picture is refused for, and what it means."""


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
