"""Where the samples of a data set lie, derived once from its manifests into flat files that are memory-mapped.

`<name>.bin` files hold plain little-endian numbers, so a row is found by arithmetic and a million rows cost no memory;
`columns.arrow` holds all columns of the manifests, uncompressed, for filters and statistics; `places.json` says what
layouts the samples have. The folder appears as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dreamline.config import ConfigError
from dreamline.storage import publish_folder

PLACES_VERSION = 1  # raised when the files change
BATCH = 16_384  # rows of a manifest held at a time
COLUMNS = "columns.arrow"
HEAD = "places.json"
DTYPES = {  # of each file
    "first": "<i8",
    "offset": "<i8",
    "size": "<i8",
    "layout": "<u2",
    "key_start": "<i8",
    "key": "u1",
}

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """What many samples share: their kind and the names of their members."""

    kind: str
    names: tuple[str, ...]


class Places:
    """The flat files, memory-mapped.

    Attributes:
        first: [N + 1] number of each row's first member.
        offset, size: [M] bytes, per member, in the order of rows.
        layout: [N] number in `layouts`.
        key_start: [N + 1] where each row's key begins in `key`, which holds UTF-8.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        head = json.loads((folder / HEAD).read_text())
        self.layouts = [Layout(kind, tuple(names)) for kind, names in head["layouts"]]
        self.maps: dict[str, list[str]] = head["maps"]  # names that occur in columns that map names to values
        arrays = {name: _mapped(folder / f"{name}.bin", dtype) for name, dtype in DTYPES.items()}
        self.first, self.offset, self.size = arrays["first"], arrays["offset"], arrays["size"]
        self.layout, self.key_start, self.key = arrays["layout"], arrays["key_start"], arrays["key"]

    def __len__(self) -> int:
        return len(self.layout)


def derive(
    tables: Sequence[tuple[str, Path]], shards: Sequence[tuple[str, int, int]], kind: str | None, folder: Path
) -> None:
    """Write the files of a data set. One process at a time may do so.

    Args:
        tables: name and local path of each manifest, the rows of all in the order of the shards.
        shards: name, bytes and number of samples of each.
        kind: of all samples, where the manifests have no column "kind".
        folder: where the files appear.

    Raises:
        ConfigError: the manifests do not fit the shards.
    """
    with (
        publish_folder(folder) as new,
        _Writer(new, shards, kind, _schema([path for _, path in tables])) as writer,
    ):
        for name, path in tables:
            writer.add(name, path)


def _mapped(path: Path, dtype: str) -> npt.NDArray[Any]:
    if not path.stat().st_size:
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r"))  # a plain array over the map: indexing is faster


def _schema(paths: Sequence[Path]) -> Any:
    """All columns of some parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa.unify_schemas([pa.schema([]), *(pq.read_schema(path).remove_metadata() for path in paths)])


class _Writer:
    """Appends manifests to the files of a folder."""

    def __init__(self, folder: Path, shards: Sequence[tuple[str, int, int]], kind: str | None, schema: Any) -> None:
        self._folder, self._kind, self._schema = folder, kind, schema
        self._names = [name for name, _, _ in shards]
        self._sizes = np.array([size for _, size, _ in shards], np.int64)
        self._ends = np.cumsum(np.array([samples for _, _, samples in shards], np.int64))
        self._layouts: dict[tuple[str, tuple[str, ...]], int] = {}
        self._maps: dict[str, set[str]] = {}
        self._files: dict[str, BinaryIO] = {}
        self._rows = self._members = self._bytes = 0

    def __enter__(self) -> _Writer:
        import pyarrow as pa

        self._files = {name: (self._folder / f"{name}.bin").open("wb") for name in DTYPES}
        self._columns = pa.ipc.new_file(self._folder / COLUMNS, self._schema)
        self._put("first", np.zeros(1))
        self._put("key_start", np.zeros(1))
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        for file in self._files.values():
            file.close()
        self._columns.close()
        if failed is None:
            expected = int(self._ends[-1]) if len(self._ends) else 0
            if self._rows != expected:
                raise ConfigError(f"the manifests have {self._rows} rows, the shards {expected} samples; restore both")
            layouts = [[kind, list(names)] for kind, names in self._layouts]
            head = {"layouts": layouts, "maps": {name: sorted(keys) for name, keys in self._maps.items()}}
            (self._folder / HEAD).write_text(json.dumps(head))

    def add(self, name: str, path: Path) -> None:
        """Append the rows of one manifest."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(BATCH):
                arrays = [
                    batch.column(field.name).cast(field.type)
                    if field.name in batch.schema.names
                    else pa.nulls(len(batch), field.type)
                    for field in self._schema
                ]
                whole = pa.record_batch(arrays, schema=self._schema)
                self._check_shards(name, whole)
                self._add_keys(whole)
                self._add_members(name, whole)
                self._note_maps(whole)
                self._columns.write_batch(whole)
                self._rows += len(whole)

    def _check_shards(self, name: str, batch: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        numbers = self._numbers(len(batch))
        if len(numbers) and numbers[-1] >= len(self._names):
            raise ConfigError(f"{name}: has more rows than the shards have samples; restore both")
        expected = pa.array(self._names, pa.string()).take(pa.array(numbers))
        if len(batch) and not pc.all(pc.equal(batch.column("shard"), expected)).as_py():
            raise ConfigError(f"{name}: its rows are not in the order of the shards; restore it, or make it again")

    def _numbers(self, count: int) -> Numbers:
        """Shards of the next rows."""
        rows = np.arange(self._rows, self._rows + count)
        return np.searchsorted(self._ends, rows, side="right").astype(np.int64)

    def _add_keys(self, batch: Any) -> None:
        keys = [key.encode() for key in batch.column("key").to_pylist()]
        ends = np.cumsum(np.array([len(key) for key in keys], np.int64)) + self._bytes
        self._put("key_start", ends)
        self._files["key"].write(b"".join(keys))
        self._bytes += sum(map(len, keys))

    def _add_members(self, name: str, batch: Any) -> None:
        lists = batch.column("members")
        members = lists.flatten()
        counts = np.asarray(lists.value_lengths())
        offset, size = (np.asarray(members.field(part)).astype(np.int64) for part in ("offset", "size"))
        if len(counts) and not counts.min():
            raise ConfigError(f"{name}: a sample has no members; restore it, or make it again")
        shards = np.repeat(self._numbers(len(batch)), counts)
        outside = np.flatnonzero((offset < 0) | (size < 0) | (offset + size > self._sizes[shards]))
        if len(outside):
            shard = self._names[int(shards[outside[0]])]
            raise ConfigError(f"{name}: lists bytes beyond the end of {shard}; restore it, or make it again")
        ends = np.cumsum(counts) + self._members
        self._put("first", ends)
        self._put("offset", offset)
        self._put("size", size)
        self._put("layout", self._layouts_of(batch, members.field("name"), counts))
        self._members += len(offset)

    def _layouts_of(self, batch: Any, names: Any, counts: npt.NDArray[Any]) -> Numbers:
        """Number of each row's layout; rows are told apart by codes of their members' names."""
        encoded = names.dictionary_encode()
        words = encoded.dictionary.to_pylist()
        codes = np.asarray(encoded.indices).astype(np.int64)
        kinds = batch.column("kind").to_pylist() if "kind" in batch.schema.names else [self._kind] * len(batch)
        starts = np.cumsum(counts) - counts
        layouts = np.zeros(len(batch), np.int64)
        for count in np.unique(counts):
            rows = np.flatnonzero(counts == count)
            of_kind = np.array([kinds[row] == "edit" for row in rows], np.int64)
            table = np.column_stack([of_kind, codes[starts[rows][:, None] + np.arange(count)]])
            different, inverse = np.unique(table, axis=0, return_inverse=True)
            numbers = [self._layout_of(line, words) for line in different.tolist()]
            layouts[rows] = np.array(numbers, np.int64)[inverse.reshape(-1)]
        return layouts

    def _layout_of(self, line: Sequence[int], words: Sequence[str]) -> int:
        layout = ("edit" if line[0] else "t2i", tuple(words[code] for code in line[1:]))
        number = self._layouts.setdefault(layout, len(self._layouts))
        if number > np.iinfo(np.uint16).max:
            raise ConfigError("the samples have more than 65536 different sets of members; index fewer tars at once")
        return number

    def _note_maps(self, batch: Any) -> None:
        import pyarrow as pa

        for field in batch.schema:
            if pa.types.is_map(field.type):
                keys = batch.column(field.name).keys.unique().to_pylist()
                self._maps.setdefault(field.name, set()).update(keys)

    def _put(self, name: str, values: npt.NDArray[Any]) -> None:
        self._files[name].write(values.astype(DTYPES[name]).tobytes())


def map_names(maps: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """`<column>.<name>` of all names that occur in columns that map names to values."""
    return (f"{column}.{name}" for column, names in maps.items() for name in names)
