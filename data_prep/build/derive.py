"""Edits made of accepted ones: their stored pictures become those of a new row, which is judged like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from data_prep.build.augment import Derivation
from data_prep.build.config import BuildConfig
from data_prep.build.pack import read_sample
from data_prep.build.prepare import Prepared, prepare
from data_prep.build.resolve import Dropped, Resolved
from data_prep.build.store import RangeReader, Store
from data_prep.edits.augment import merged_target
from data_prep.edits.change import change_mask
from data_prep.edits.config import Change
from data_prep.edits.foreground import decode_mask, encode_mask
from data_prep.edits.pair import Pair
from data_prep.edits.verdict import Mask, Pixels
from data_prep.record import Picture, Problem, Provenance, Record
from dreamline.data.sample import Sample
from dreamline.media.decode import decode
from dreamline.media.errors import MediaError
from dreamline.media.jpeg import encode_jpeg

OVERLAP = "changes_overlap"


def derive(
    derivations: Iterable[Derivation | Problem], config: BuildConfig, store: Store
) -> Iterator[Prepared | Dropped]:
    """Make edits, in order; a problem in place of one is its end."""
    reader = store.ranges()
    try:
        for ordinal, derivation in enumerate(derivations):
            if isinstance(derivation, Problem):
                yield Dropped(ordinal, None, derivation)
                continue
            try:
                yield _prepare(ordinal, derivation, config, reader)
            except MediaError as error:
                yield Dropped(ordinal, None, Problem(derivation.row, error.reason, error.detail))
    finally:
        reader.close()


def _prepare(ordinal: int, derivation: Derivation, config: BuildConfig, reader: RangeReader) -> Prepared | Dropped:
    read = [read_sample(reader, parent.pack, parent.place) for parent in derivation.parents]
    rows = [row for row, _ in read]
    samples = [Sample.from_members(row["key"], members) for row, members in read]
    first, last, parents = samples[0], samples[-1], derivation.parents
    source, image = first.source or b"", last.image
    names = (parents[0].link.source_id, parents[-1].link.target_id)
    if derivation.kind == "inverse":
        source, image, names = image, source, names[::-1]
    elif derivation.kind == "merge":
        made = _merged(derivation, samples, config)
        if isinstance(made, Problem):
            return Dropped(ordinal, None, made)
        image, names = made, (names[0], hashlib.sha256(made).hexdigest())
    mask = None if config.edits.checks.foreground is not None else _mask(samples)  # else the checks make one
    record = Record(
        row=derivation.row,
        kind="edit",
        text=derivation.text,
        image=Picture(content=image),
        source=Picture(content=source),
        label=derivation.type,
        provenance=_provenance(rows),
    )
    prepared = prepare(Resolved(ordinal, record, image, source, mask), config, parents[-1].source)
    size = min((parent.size for parent in parents), key=lambda size: size[0] * size[1])
    prepared.candidate = replace(
        prepared.candidate,
        key=derivation.key,
        source_sha256=names[0],
        sha256=names[1],
        width=size[0],
        height=size[1],
    )
    prepared.noted |= {"augmentation": derivation.kind, "parents": [parent.link.key for parent in parents]}
    return prepared


def _merged(derivation: Derivation, samples: list[Sample], config: BuildConfig) -> bytes | Problem:
    """The picture with both changes, as a JPEG, where it can be had."""

    def pixels(content: bytes) -> Pixels:
        return decode(content, config.image.decode).pixels

    def changed(source: Pixels, target: Pixels) -> Mask:
        pair = Pair(source, target, None, max(source.shape[:2]))
        return change_mask(pair, config.edits.checks.change or Change()).mask

    source, *targets = pixels(samples[0].source or b""), *(pixels(sample.image) for sample in samples)
    if any(target.shape != source.shape for target in targets):
        return Problem(derivation.row, "geometry_differs", "the two edits are stored in different sizes")
    parts = [
        (target, changed(source, target), parent.link.type)
        for target, parent in zip(targets, derivation.parents, strict=True)
    ]
    merged = merged_target(source, parts[0], parts[1], config.edits.augment.gap)
    if merged is None:
        return Problem(derivation.row, OVERLAP, f"the changes are less than {config.edits.augment.gap} px apart")
    return encode_jpeg(merged, config.image.decode.quality)


def _mask(samples: list[Sample]) -> bytes | None:
    """Where the edits may change something, if all of them say so."""
    masks = [decode_mask(sample.mask) for sample in samples if sample.mask is not None]
    if len(masks) < len(samples) or any(mask.shape != masks[0].shape for mask in masks):
        return None
    return encode_mask(np.logical_or.reduce(masks))


def _provenance(rows: list[dict[str, Any]]) -> Provenance:
    """That of the edit whose target is taken; what one owner says against training holds for the whole."""
    row = rows[-1]
    names = ("url", "page_url", "licence", "licence_url", "author")
    opt_out = next((other["opt_out"] for other in rows if other["opt_out"]), None)
    return Provenance(**{name: row[name] for name in names}, opt_out=opt_out)
