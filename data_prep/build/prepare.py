"""From the bytes of a row to a candidate that can be judged and to the files that will be stored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data_prep.build.config import BuildConfig, ImageConfig
from data_prep.build.resolve import Resolved, row_id, sample_key
from data_prep.edits.foreground import encode_mask
from data_prep.edits.vocabulary import edit_type_of
from data_prep.filters.candidate import Candidate, hash_pixels
from dreamline.data.sample import Sample
from dreamline.media.buckets import choose_bucket, choose_pair_bucket
from dreamline.media.decode import Decoded, Encoded, decode, encode
from dreamline.media.errors import MediaError
from dreamline.media.geometry import Geometry, longer_side, scaled_to, shorter_side
from dreamline.media.header import Header, read_header
from dreamline.media.phash import phash_both

Mask = NDArray[np.bool_]


@dataclass
class Prepared:
    """A decoded row. Verdicts add scores and a mask."""

    resolved: Resolved
    candidate: Candidate
    decoded: Decoded
    source: Decoded | None
    bucket: str | None
    mask: Mask | None  # of an edit: where it may change, or where it did
    scores: dict[str, float]
    embedding: NDArray[np.float16] | None = None
    noted: dict[str, Any] = field(default_factory=dict)  # more columns of the manifest: where a caption is from

    @property
    def augmented(self) -> bool:
        """Whether it was made of other samples."""
        return "augmentation" in self.noted


def prepare(resolved: Resolved, config: BuildConfig, source_name: str) -> Prepared:
    """Decode the pictures of a row at their geometry and measure them.

    Raises:
        MediaError: a picture is refused; the detail begins with the role where it is not the image.
    """
    record, image = resolved.record, config.image
    header = _header(resolved.image, image, "")
    source_header = None if resolved.source is None else _header(resolved.source, image, "source")
    geometry = place(header, source_header, image)
    decoded = _decode(resolved.image, image, geometry, header, "")
    source = None
    if resolved.source is not None:
        source = _decode(resolved.source, image, geometry, source_header, "source")
    mask = None
    if resolved.mask is not None:
        mask = _mask(resolved.mask, image, geometry or scaled_to(header.width, header.height), record.holes)
    sha256, source_sha256 = resolved.sha256, resolved.source_sha256
    hashes = phash_both(decoded.pixels)
    source_hashes = (None, None) if source is None else phash_both(source.pixels)
    scores = {name: float(value) for name, value in record.scores.items() if math.isfinite(value)}
    smaller = min(((h.width, h.height) for h in (header, source_header) if h is not None), key=lambda s: s[0] * s[1])
    candidate = Candidate(
        record=record,
        source_name=source_name,
        key=sample_key(record, sha256, source_sha256),
        image=decoded.pixels,
        width=smaller[0],
        height=smaller[1],
        sha256=sha256,
        pixel_sha256=hash_pixels(decoded.pixels),
        phash=hashes[0],
        phash_mirrored=hashes[1],
        source=None if source is None else source.pixels,
        mask=None if mask is None else mask.astype(np.uint8) * np.uint8(255),
        source_sha256=source_sha256,
        source_pixel_sha256=None if source is None else hash_pixels(source.pixels),
        source_phash=source_hashes[0],
        source_phash_mirrored=source_hashes[1],
        scores=scores,
    )
    bucket = f"{geometry.width}x{geometry.height}" if geometry is not None and image.buckets is not None else None
    return Prepared(resolved, candidate, decoded, source, bucket, mask, scores)


def place(header: Header, source: Header | None, config: ImageConfig) -> Geometry | None:
    """Where the pixels go; one geometry for both pictures of an edit. None keeps the size of a single picture.

    Raises:
        MediaError: no bucket takes it, or the two pictures differ in aspect.
    """
    size = (header.width, header.height)
    if source is None:
        if config.buckets is not None:
            return choose_bucket(*size, config.buckets).geometry
        return _scale(size, config)
    other = (source.width, source.height)
    if config.buckets is not None:
        return choose_pair_bucket(other, size, config.buckets, config.pair_tolerance).geometry
    small, large = sorted((size, other))
    factor = max(small[0] / large[0], small[1] / large[1])
    if max(abs(large[0] * factor - small[0]), abs(large[1] * factor - small[1])) > config.pair_tolerance:
        raise MediaError("geometry_differs", f"source {other[0]} x {other[1]}, target {size[0]} x {size[1]}")
    return _scale(small, config) or scaled_to(*small)


def to_sample(prepared: Prepared, config: BuildConfig) -> tuple[Sample, dict[str, Any]]:
    """The sample as it will be stored, and its row of the manifest but for the place in a shard."""
    candidate, decode_config = prepared.candidate, config.image.decode
    record = candidate.record
    image = encode(prepared.decoded, decode_config)
    source = None if prepared.source is None else encode(prepared.source, decode_config)
    mask = prepared.mask
    whole = mask is not None and bool(mask.all())
    provenance = record.provenance
    known: dict[str, Any] = {
        "source": candidate.source_name,
        "url": provenance.url or record.image.url,
        "page_url": provenance.page_url,
        "licence": provenance.licence,
        "licence_url": provenance.licence_url,
        "author": provenance.author,
        "opt_out": provenance.opt_out or (prepared.resolved.fetched and prepared.resolved.fetched.opt_out),
        "sha256": candidate.sha256,
        "source_sha256": candidate.source_sha256,
        "original_width": candidate.width,
        "original_height": candidate.height,
        "scores": {name: float(f"{value:.6g}") for name, value in sorted(prepared.scores.items())},
        "extra": dict(sorted(record.extra.items())),
        **prepared.noted,
    }
    height, width = prepared.decoded.pixels.shape[:2]
    sample = Sample(
        key=candidate.key,
        kind=record.kind,
        text=plain(record.text or ""),
        label=plain(record.label or ""),
        facts=clean({name: value for name, value in known.items() if value not in (None, {})}),
        width=width,
        height=height,
        image=image.content,
        source=None if source is None else source.content,
        mask=None if mask is None or whole or record.kind != "edit" else encode_mask(mask),
    )
    return sample, {**known, **_facts(prepared, image, source, sample)}


def _facts(prepared: Prepared, image: Encoded, source: Encoded | None, sample: Sample) -> dict[str, Any]:
    candidate, header, fetched = prepared.candidate, prepared.decoded.header, prepared.resolved.fetched
    record = prepared.resolved.record
    return {
        "key": candidate.key,
        "kind": record.kind,
        "text": sample.text,
        "label": sample.label,
        "edit_type": edit_type_of(record.label, record.text) if record.kind == "edit" else None,
        "facts": json.dumps(sample.facts, sort_keys=True, separators=(",", ":")),
        "width": sample.width,
        "height": sample.height,
        "bucket": prepared.bucket,
        "row": candidate.row,
        "row_id": row_id(record),
        "final_url": fetched.final_url if fetched else None,
        "robots": fetched.robots if fetched else None,
        "pixel_sha256": candidate.pixel_sha256,
        "phash": candidate.phash,
        "phash_mirrored": candidate.phash_mirrored,
        "source_pixel_sha256": candidate.source_pixel_sha256,
        "source_phash": candidate.source_phash,
        "source_phash_mirrored": candidate.source_phash_mirrored,
        "format": header.format,
        "mode": header.mode,
        "bits": header.bits,
        "frames": header.frames,
        "orientation": header.orientation,
        "alpha": header.alpha,
        "icc": header.icc is not None,
        "decoder": prepared.decoded.decoder,
        "notes": list(prepared.decoded.notes),
        "reencoded": image.reencoded or (source is not None and source.reencoded),
    }


def plain(text: str) -> str:
    """A text that can be written as UTF-8: lone surrogates (from odd file names and JSON) become question marks."""
    return text.encode("utf-8", "replace").decode()


def clean(value: Any) -> Any:
    """The same JSON value with every text `plain`."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(clean(item) for item in value)
    return value


def _scale(size: tuple[int, int], config: ImageConfig) -> Geometry | None:
    if config.shorter_side is not None:
        return shorter_side(config.shorter_side)(*size)
    if config.longer_side is not None:
        return longer_side(config.longer_side)(*size)
    return None


def _header(content: bytes, config: ImageConfig, role: str) -> Header:
    try:
        return read_header(content, config.decode)
    except MediaError as error:
        raise _of(error, role) from None


def _decode(content: bytes, config: ImageConfig, to: Geometry | None, header: Header | None, role: str) -> Decoded:
    try:
        return decode(content, config.decode, to, header)
    except MediaError as error:
        raise _of(error, role) from None


def _mask(content: bytes, config: ImageConfig, to: Geometry, holes: bool) -> Mask | None:
    """True where the edit may change the picture; None where a mask that should have holes has none."""
    if not holes:
        pixels = _decode(content, config, to, None, "mask").pixels
        return np.asarray(pixels.max(axis=2) > 127)
    over = []
    for tone in (0, 255):  # what is seen through the holes, and only that, differs
        decode_config = config.decode.model_copy(update={"background": (tone, tone, tone)})
        over.append(_decode(content, config.model_copy(update={"decode": decode_config}), to, None, "mask").pixels)
    mask = np.asarray(cv2.absdiff(*over).max(axis=2) > 127)
    return mask if mask.any() else None


def _of(error: MediaError, role: str) -> MediaError:
    return MediaError(error.reason, f"{role}: {error.detail}") if role else error
