"""The version of a data set that is published: what its dataset.json says."""

from __future__ import annotations

from data_prep.build.store import Store
from dreamline.data.collection import CollectionInfo, parse_collection
from dreamline.data.manifest import DATASET


def read_dataset(store: Store) -> CollectionInfo | None:
    """The version that is published, or None.

    Raises:
        ConfigError: its dataset.json is damaged, or of another kind.
    """
    content = read_if_there(store, DATASET)
    return None if content is None else parse_collection(content, f"{store.location}/{DATASET}")


def read_if_there(store: Store, name: str) -> bytes | None:
    """A whole file, or None."""
    try:
        return store.read(name)
    except FileNotFoundError:
        return None
