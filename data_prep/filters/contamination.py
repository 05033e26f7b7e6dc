"""Decontamination: rows that are near an evaluation set are dropped, and the matching pairs are the evidence."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_prep.filters.columns import EVIDENCE, evidence, hashes, ranked
from data_prep.filters.config import EvaluationSet
from data_prep.filters.near import near_pairs
from data_prep.filters.texts import ngrams
from dreamline.config import ConfigError
from dreamline.media.config import DecodeConfig
from dreamline.media.decode import decode
from dreamline.media.errors import MediaError
from dreamline.media.phash import phash_both
from dreamline.storage import list_files, read_bytes

_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True)
class References:
    """An evaluation set: what identifies its pictures, and its prompts; each with an id."""

    name: str
    ids: tuple[str, ...] = ()  # of pictures
    sha256: tuple[str | None, ...] = ()
    phash: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))  # [M]; 0 where there is none
    phash_mirrored: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    prompts: tuple[tuple[str, str], ...] = ()  # (id, text)


def open_references(config: EvaluationSet) -> References:
    """Read an evaluation set.

    Raises:
        ConfigError: a file is missing, holds nothing of use, or a picture cannot be decoded: what cannot be read cannot
            be searched for, so nothing is passed over.
    """
    pictures = [*_folder(config), *_hash_file(config)]
    return References(
        config.name,
        tuple(name for name, *_ in pictures),
        tuple(digest for _, digest, _, _ in pictures),
        np.asarray([value for *_, value, _ in pictures], np.uint64),
        np.asarray([value for *_, value in pictures], np.uint64),
        tuple(_prompts(config)),
    )


def contaminated(
    table: pa.Table, references: Sequence[References], max_distance: int = 6, ngram: int = 8, min_overlap: float = 0.5
) -> pa.Table:
    """Evidence of rows near evaluation sets: for each row, set and way of matching the nearest reference.

    A picture matches by its file's sha256 or by perceptual hashes within `max_distance` bits, also mirrored; of edits
    both pictures are looked up. A text matches if it holds at least `min_overlap` of a prompt's n-grams of words; a
    prompt of fewer words must be equal as a whole. Distance is in bits, or 1 - overlap.
    """
    table = ranked(table)
    parts = [EVIDENCE.empty_table()]
    for reference in references:
        best: dict[tuple[int, str], tuple[float, str]] = {}  # by row and kind: distance and id
        for prefix in ("", "source_"):
            _match_bytes(table, prefix, reference, best)
            _match_pictures(table, prefix, reference, max_distance, best)
        _match_texts(table, reference, ngram, min_overlap, best)
        order = sorted(best)
        rows = np.asarray([row for row, _ in order], np.int64)
        matched = [f"{reference.name}:{best[item][1]}" for item in order]
        apart = np.asarray([best[item][0] for item in order], np.float64)
        parts.append(evidence(table, rows, "contaminated", [kind for _, kind in order], matched, apart))
    return pa.concat_tables(parts)


Best = dict[tuple[int, str], tuple[float, str]]


def _note(best: Best, row: int, kind: str, distance: float, name: str) -> None:
    best[row, kind] = min(best.get((row, kind), (distance, name)), (distance, name))


def _match_bytes(table: pa.Table, prefix: str, reference: References, best: Best) -> None:
    ids = {digest: name for name, digest in zip(reference.ids, reference.sha256, strict=True) if digest}
    for row, digest in enumerate(table[f"{prefix}sha256"].to_pylist()):
        if digest in ids:
            _note(best, row, f"{prefix}sha256", 0.0, ids[digest])


def _match_pictures(table: pa.Table, prefix: str, reference: References, max_distance: int, best: Best) -> None:
    rows, known = np.flatnonzero(hashes(table, f"{prefix}phash")), np.flatnonzero(reference.phash)
    own, own_mirrored = (hashes(table, f"{prefix}{name}")[rows] for name in ("phash", "phash_mirrored"))
    for kind, left, right in (
        ("phash", own, reference.phash),
        ("phash_mirrored", own, reference.phash_mirrored),
        ("phash_mirrored", own_mirrored, reference.phash),
    ):
        pairs = near_pairs(left, right[known], max_distance)
        for i, j, apart in zip(pairs.left.tolist(), pairs.right.tolist(), pairs.distance.tolist(), strict=True):
            _note(best, int(rows[i]), f"{prefix}{kind}", apart, reference.ids[known[j]])


def _match_texts(table: pa.Table, reference: References, ngram: int, min_overlap: float, best: Best) -> None:
    sizes, index = [], defaultdict[tuple[str, ...], list[int]](list)
    for number, (_, prompt) in enumerate(reference.prompts):
        grams = ngrams(prompt, ngram)
        sizes.append(len(grams))
        for gram in grams:
            index[gram].append(number)
    if not index:
        return
    for row, text in enumerate(table["text"].to_pylist()):
        shared: dict[int, int] = defaultdict(int)
        for gram in ngrams(text or "", ngram):
            for number in index.get(gram, ()):
                shared[number] += 1
        for number, count in shared.items():
            if count >= min_overlap * sizes[number]:
                _note(best, row, "caption", 1 - count / sizes[number], reference.prompts[number][0])


Entry = tuple[str, str | None, int, int]  # id, sha256, phash, phash_mirrored


def _folder(config: EvaluationSet) -> list[Entry]:
    if config.images is None:
        return []
    where = f"evaluation set {config.name!r}"
    try:
        files = [file for file in list_files(config.images) if PurePath(file.name).suffix.lower() in _PICTURES]
    except OSError as error:
        raise ConfigError(f"{where}: {config.images}: cannot be read: {error}") from None
    if not files:
        raise ConfigError(f"{where}: {config.images}: no pictures there")
    return [(file.name, *_identity(where, file.path)) for file in files]


def _identity(where: str, path: str) -> tuple[str, int, int]:
    try:
        content = read_bytes(path)
        pixels = decode(content, DecodeConfig()).pixels
    except (MediaError, OSError) as error:
        raise ConfigError(f"{where}: {path}: {error}; repair or remove the file") from None
    return hashlib.sha256(content).hexdigest(), *phash_both(pixels)


def _hash_file(config: EvaluationSet) -> list[Entry]:
    if config.hashes is None:
        return []
    entries: list[Entry] = []
    for number, line in enumerate(_lines(config.name, config.hashes)):
        where = f"evaluation set {config.name!r}: {config.hashes}: row {number}"
        digest = line.get("sha256")
        try:
            own, mirrored = (_hash(line.get(name)) for name in ("phash", "phash_mirrored"))
        except ValueError:
            raise ConfigError(f"{where}: phash must be 16 hex digits, or an integer") from None
        if not digest and not own:
            raise ConfigError(f"{where}: neither sha256 nor phash there")
        entries.append((str(line.get("id") or number), str(digest).lower() if digest else None, own, mirrored))
    return entries


def _hash(value: object) -> int:
    if value is None or value == "":
        return 0
    return value & (2**64 - 1) if isinstance(value, int) else int(str(value), 16)


def _prompts(config: EvaluationSet) -> list[tuple[str, str]]:
    if config.prompts is None:
        return []
    lines = _lines(config.name, config.prompts, config.prompt_column)
    found = [(str(line.get("id") or number), line.get(config.prompt_column)) for number, line in enumerate(lines)]
    texts = [(name, text) for name, text in found if isinstance(text, str) and text.strip()]
    if not texts:
        raise ConfigError(
            f"evaluation set {config.name!r}: {config.prompts}: no texts in {config.prompt_column!r}; set prompt_column"
        )
    return texts


def _lines(name: str, path: str, column: str = "prompt") -> list[dict[str, object]]:
    """Rows of a table in any of the formats; of a plain text file or a list of strings one column."""
    form = PurePath(path).suffix
    try:
        content = read_bytes(path)
        if form == ".parquet":
            import pyarrow.parquet as pq

            return list(pq.read_table(pa.BufferReader(content)).to_pylist())
        text = content.decode("utf-8")
        if form in (".csv", ".tsv"):
            return list(csv.DictReader(text.splitlines(), delimiter="\t" if form == ".tsv" else ","))
        if form == ".txt":
            return [{column: line} for line in text.splitlines() if line.strip()]
        rows = json.loads(text) if form == ".json" else [json.loads(s) for s in text.splitlines() if s.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"evaluation set {name!r}: {path}: cannot be read: {error}") from None
    if not isinstance(rows, list):
        raise ConfigError(f"evaluation set {name!r}: {path}: must be a list of rows or of strings")
    return [row if isinstance(row, dict) else {column: row} for row in rows]
