"""Reading a sharded data set through its manifest: any sample at once, no index to build, every byte checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamline.config import ConfigError
from dreamline.data.manifest import MANIFEST, DatasetInfo, read_info, read_table
from dreamline.data.sample import Sample


class ShardSet:
    """The samples of a data set folder, in the order of the manifest.

    Raises:
        ConfigError: the folder is no finished data set.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.info = read_info(DatasetInfo, folder)
        self.rows = read_table(self.folder / MANIFEST)
        if len(self.rows) != self.info.num_samples:
            raise ConfigError(
                f"{self.folder}: {MANIFEST} has {len(self.rows)} rows, dataset.json says {self.info.num_samples}"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Sample:
        """One sample.

        Raises:
            ConfigError: a member's bytes are not those that were written.
        """
        row = self.rows[number]
        descriptor = os.open(self.folder / row["shard"], os.O_RDONLY)
        try:
            return self._read(descriptor, row)
        finally:
            os.close(descriptor)

    def shard(self, name: str) -> Iterator[Sample]:
        """The samples of one shard, in order."""
        descriptor = os.open(self.folder / name, os.O_RDONLY)
        try:
            yield from (self._read(descriptor, row) for row in self.rows if row["shard"] == name)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, row: dict[str, Any]) -> Sample:
        members = {}
        for member in row["members"]:
            content = os.pread(descriptor, member["size"], member["offset"])
            if hashlib.sha256(content).hexdigest() != member["sha256"]:
                raise ConfigError(
                    f"{self.folder / row['shard']}: sample {row['key']}, member {member['name']} is damaged; "
                    "delete the folder's dataset.json and the run's result.json, and run the data job again"
                )
            members[member["name"]] = content
        return Sample.from_members(row["key"], members)
