"""A data set below an S3 prefix. An object appears as a whole or not at all, so nothing has to be moved into place."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from data_prep.build.store import Conflict
from dreamline import storage_s3
from dreamline.config import ConfigError


class S3Store:
    """See `Store`. Credentials, region and AWS_ENDPOINT_URL come from where boto3 looks for them."""

    def __init__(self, location: str) -> None:
        bucket, _, prefix = location.removeprefix(storage_s3.SCHEME).partition("/")
        if not bucket:
            raise ConfigError(f"output: {location} names no bucket; write s3://bucket/prefix")
        self.location = f"{storage_s3.SCHEME}{bucket}/{prefix.strip('/')}".rstrip("/")

    def check(self) -> None:
        """See `Store`."""
        try:
            next(storage_s3.list_prefix(self._url("dataset.json")), None)
        except OSError as error:
            raise ConfigError(f"output: {error}") from None

    def names(self, prefix: str = "") -> dict[str, int]:
        """See `Store`."""
        found = storage_s3.list_prefix(self._url(prefix))
        return {url.removeprefix(self._url("")): size for url, size, _ in found}

    def read(self, name: str) -> bytes:
        """See `Store`."""
        with storage_s3.open_read(self._url(name)) as file:
            return file.read()

    def fetch(self, name: str, path: Path) -> None:
        """See `Store`."""
        storage_s3.get_file(self._url(name), path)

    def ranges(self) -> S3Reader:
        """See `Store`."""
        return S3Reader(self)

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Bytes offset..offset+size-1. OSError: the object is missing or shorter."""
        content = storage_s3.read_range(self._url(name), offset, size)
        if len(content) != size:
            raise OSError(f"{self._url(name)}: ends before byte {offset + size}")
        return content

    def put(self, name: str, content: bytes) -> None:
        """See `Store`."""
        storage_s3.put(self._url(name), content)

    def put_file(self, name: str, path: Path) -> None:
        """See `Store`. What is there already is not sent again."""
        storage_s3.put(self._url(name), path, if_absent=True)
        path.unlink()

    def put_first(self, name: str, content: bytes) -> bool:
        """See `Store`."""
        try:
            return storage_s3.put(self._url(name), content, if_absent=True)
        except FileExistsError:
            return False

    def swap(self, name: str, content: bytes, before: bytes | None) -> None:
        """See `Store`. The store itself compares entity tags, so the check and the write are one step."""
        try:
            storage_s3.swap(self._url(name), content, before)
        except FileExistsError:
            raise Conflict(
                f"{self._url(name)}: another build has published in the meantime; run the same command again"
            ) from None

    def delete(self, name: str) -> None:
        """See `Store`."""
        storage_s3.delete(self._url(name))

    def clear(self, folder: str) -> None:
        """See `Store`."""
        for name in self.names(f"{folder}/"):
            self.delete(name)

    def scratch(self) -> TemporaryDirectory[str]:
        """See `Store`."""
        return TemporaryDirectory(prefix="dreamline-")

    def _url(self, name: str) -> str:
        return f"{self.location}/{name}"


class S3Reader:
    """See `RangeReader`; may be used from many threads."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    def read(self, name: str, offset: int, size: int) -> bytes:
        """See `RangeReader`."""
        return self._store.read_range(name, offset, size)

    def close(self) -> None:
        """Nothing is open."""
