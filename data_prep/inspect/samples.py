"""Single samples: some drawn at random, or one by its key, with the bytes of its members."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.inspect.terminal import plain
from dreamline.config import ConfigError
from dreamline.data.foreign import PICTURES
from dreamline.data.index import Location, SampleIndex
from dreamline.data.loader import read_ahead
from dreamline.media.config import DecodeConfig
from dreamline.media.decode import decode
from dreamline.media.errors import MediaError
from dreamline.storage import join, read_range, write_bytes

THREADS = 8  # samples read at a time
SIMILAR = 5  # keys named where one is not there
LENIENT = DecodeConfig(animated="first")


@dataclass(frozen=True)
class Found:
    """A sample as it lies in its shard."""

    row: int
    location: Location
    shard: str
    kind: str
    columns: Mapping[str, Any]  # of the manifest, without those that say where it lies
    members: Mapping[str, bytes | str]  # content by name, or why it cannot be read

    @property
    def key(self) -> str:
        """Its key."""
        return self.location.key

    def pictures(self) -> dict[str, bytes | str]:
        """Its pictures, of an edit the source first and the mask last, with whatever else is a picture."""
        order = {"source": 0, "input": 0, "original": 0, "mask": 2}
        names = [name for name in self.members if name.rpartition(".")[2] in PICTURES]
        return {name: self.members[name] for name in sorted(names, key=lambda name: order.get(name.split(".")[0], 1))}


def draw(index: SampleIndex, num: int, seed: int) -> Iterator[Found]:
    """Some samples, different ones, in the order of the data set; the same for the same seed."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(index), min(num, len(index)), replace=False, shuffle=False))
    return read(index, rows.tolist())


def find(index: SampleIndex, key: str) -> Found:
    """The sample of a key.

    Raises:
        ConfigError: there is none; names some that are similar.
    """
    import pyarrow.compute as pc

    keys = index.column("key")
    row = pc.index(keys, key).as_py()
    if row < 0:
        similar = keys.filter(pc.match_substring(keys, key)).slice(0, SIMILAR).to_pylist()
        other = f"a key is, for one, {index.key(0)}" if len(index) else "it has no samples"
        hint = f"keys with it are {', '.join(similar)}" if similar else other
        raise ConfigError(f"{index.folder}: no sample has the key {key!r}; {plain(hint)}")
    return _read(index, row)


def read(index: SampleIndex, rows: Sequence[int]) -> Iterator[Found]:
    """The samples of some rows with their bytes, a few at a time; what cannot be read is told, not raised."""
    return read_ahead(lambda row: _read(index, row), rows, workers=THREADS, ahead=THREADS)


def _read(index: SampleIndex, row: int) -> Found:
    (location,) = index.locate([row])
    shard = index.shards[location.shard].name
    path = join(index.folder, shard)
    members: dict[str, bytes | str] = {}
    for member in location.members:
        try:
            content = read_range(path, member.offset, member.size)
            members[member.name] = content if len(content) == member.size else f"{shard} ends before it does"
        except OSError as error:
            members[member.name] = str(error)
    hidden = {"key", "shard", "members", "digest"}
    names = [name for name in index.columns if name not in hidden and not name.startswith("scores.")]
    columns = {name: _plain(index.column(name)[row].as_py()) for name in names}
    return Found(row, location, shard, index.kind(row), columns, members)


def describe(found: Found, folder: str) -> dict[str, Any]:
    """The JSON of a sample: where it lies, its members, its pictures, and what the manifest says of it."""
    members = [member._asdict() for member in found.location.members]
    unreadable = {name: content for name, content in found.members.items() if isinstance(content, str)}
    pictures = {name: picture_facts(content) for name, content in found.pictures().items()}
    texts = {
        name: content.decode(errors="replace")
        for name, content in found.members.items()
        if isinstance(content, bytes) and name not in pictures
    }
    return {
        "key": found.key,
        "row": found.row,
        "kind": found.kind,
        "shard": join(folder, found.shard),
        "members": members,
        "unreadable": unreadable,
        "pictures": pictures,
        "texts": texts,
        "columns": {name: value for name, value in found.columns.items() if value not in (None, "", [], {})},
    }


def picture_facts(content: bytes | str) -> dict[str, Any]:
    """Format and upright size of a picture, or what is wrong with it."""
    if isinstance(content, str):
        return {"broken": content}
    try:
        header = decode(content, LENIENT).header  # all of it: a header may be sound where the picture is not
    except MediaError as error:
        return {"broken": str(error)}
    return {"format": header.format, "width": header.width, "height": header.height, "mode": header.mode}


def write_pictures(found: Found, folder: Path) -> list[str]:
    """Write the pictures of a sample as they are, named after key and member; their paths."""
    stem = _cut(re.sub(r"[^\w-]+", "_", found.key), 120)
    paths: list[str] = []
    for name, content in found.pictures().items():
        if isinstance(content, bytes):
            before, dot, extension = re.sub(r"[^\w.-]+", "_", name).rpartition(".")
            path = folder / f"{stem}.{_cut(before, 60)}{dot}{extension}"
            if str(path) in paths:  # "a b.png" and "a:b.png"
                path = folder / f"{stem}.{_cut(before, 60)}-{len(paths)}{dot}{extension}"
            write_bytes(path, content)
            paths.append(str(path))
    return paths


def _cut(text: str, size: int) -> str:
    """As much of a text as fits into so many bytes; the name of a file may have 255."""
    return text.encode()[:size].decode(errors="ignore")


def _plain(value: Any) -> Any:
    """A cell as plain JSON: maps as mappings, JSON texts opened, bytes in hex."""
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        return dict(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str) and value[:1] == "{":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
