"""A data set below an S3 prefix. An object appears as a whole or not at all, so nothing has to be moved into place."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from data_prep.build.store import Conflict
from dreamline.config import ConfigError

PART = 64 * 2**20  # bytes; larger files go up in parts
_MISSING = ("404", "NoSuchKey", "NotFound")
_CONFLICT = ("412", "PreconditionFailed", "409", "ConditionalRequestConflict")

Result = TypeVar("Result")


class S3Store:
    """See `Store`. Credentials, region and AWS_ENDPOINT_URL come from where boto3 looks for them."""

    def __init__(self, location: str) -> None:
        bucket, _, prefix = location.removeprefix("s3://").partition("/")
        if not bucket:
            raise ConfigError(f"output: {location} names no bucket; write s3://bucket/prefix")
        self._bucket, self._prefix = bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.location = f"s3://{bucket}/{self._prefix}".rstrip("/")

    def names(self, prefix: str = "") -> dict[str, int]:
        """See `Store`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        objects = self._ask(lambda: [item for page in pages for item in page.get("Contents", ())], prefix)
        return {item["Key"].removeprefix(self._prefix): int(item["Size"]) for item in objects}

    def read(self, name: str) -> bytes:
        """See `Store`."""
        return self._ask(lambda: bytes(self._client.get_object(**self._at(name))["Body"].read()), name)

    def fetch(self, name: str, path: Path) -> None:
        """See `Store`."""
        self._ask(lambda: self._client.download_file(self._bucket, self._prefix + name, str(path)), name)

    def ranges(self) -> S3Reader:
        """See `Store`."""
        return S3Reader(self)

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Bytes offset..offset+size-1. OSError: the object is shorter."""
        if not size:
            return b""
        wanted = f"bytes={offset}-{offset + size - 1}"
        content = self._ask(lambda: bytes(self._client.get_object(**self._at(name), Range=wanted)["Body"].read()), name)
        if len(content) != size:
            raise OSError(f"{self.location}/{name}: ends before byte {offset + size}")
        return content

    def put(self, name: str, content: bytes) -> None:
        """See `Store`."""
        self._ask(lambda: self._client.put_object(**self._at(name), Body=content, ChecksumAlgorithm="SHA256"), name)

    def put_file(self, name: str, path: Path) -> None:
        """See `Store`. Large files go up in parts, which nobody sees before the last one is there.

        Of writers of one content-named file the first wins, and what is there already is not sent again.
        """
        try:
            if path.stat().st_size <= PART:
                with path.open("rb") as body:
                    self._ask(lambda: self._client.put_object(**self._at(name), Body=body, IfNoneMatch="*"), name)
            else:
                self._ask(lambda: self._put_parts(name, path), name)
        except Conflict:
            pass  # it is there
        path.unlink()

    def _put_parts(self, name: str, path: Path) -> None:
        client, at = self._client, self._at(name)
        upload = client.create_multipart_upload(**at)["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            with path.open("rb") as file:
                while body := file.read(PART):
                    number = len(parts) + 1
                    tag = client.upload_part(**at, UploadId=upload, PartNumber=number, Body=body)["ETag"]
                    parts.append({"PartNumber": number, "ETag": tag})
            client.complete_multipart_upload(**at, UploadId=upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
        except BaseException:
            client.abort_multipart_upload(**at, UploadId=upload)
            raise

    def put_first(self, name: str, content: bytes) -> bool:
        """See `Store`."""
        try:
            self._ask(lambda: self._client.put_object(**self._at(name), Body=content, IfNoneMatch="*"), name)
        except Conflict:
            return False
        return True

    def swap(self, name: str, content: bytes, before: bytes | None) -> None:
        """See `Store`. The store compares entity tags, so the check and the write are one step."""
        if before is None:
            condition = {"IfNoneMatch": "*"}
        else:
            now = self._ask(lambda: self._client.get_object(**self._at(name)), name)
            if now["Body"].read() != before:
                raise self._conflict(name)
            condition = {"IfMatch": now["ETag"]}
        self._ask(lambda: self._client.put_object(**self._at(name), Body=content, **condition), name)

    def delete(self, name: str) -> None:
        """See `Store`."""
        self._ask(lambda: self._client.delete_object(**self._at(name)), name)

    def clear(self, folder: str) -> None:
        """See `Store`."""
        names = list(self.names(f"{folder}/"))
        for start in range(0, len(names), 1000):
            keys = [{"Key": self._prefix + name} for name in names[start : start + 1000]]
            self._delete(keys, folder)

    def _delete(self, keys: list[dict[str, str]], folder: str) -> None:
        wanted = {"Objects": keys, "Quiet": True}
        self._ask(lambda: self._client.delete_objects(Bucket=self._bucket, Delete=wanted), folder)

    def scratch(self) -> TemporaryDirectory[str]:
        """See `Store`."""
        return TemporaryDirectory(prefix="dreamline-")

    @property
    def _client(self) -> Any:
        return _client(os.getpid())

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    def _ask(self, call: Callable[[], Result], name: str) -> Result:
        """Make a call; the store's answers become our errors."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return call()
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            if code == "NoSuchBucket":
                raise ConfigError(f"{self.location}: there is no bucket {self._bucket!r}; create it first") from None
            if code in _MISSING:
                raise FileNotFoundError(f"{self.location}/{name}") from None
            if code in _CONFLICT:
                raise self._conflict(name) from None
            raise ConfigError(f"{self.location}/{name}: {error}") from error
        except BotoCoreError as error:
            raise ConfigError(f"{self.location}: cannot be reached: {error}") from error

    def _conflict(self, name: str) -> Conflict:
        return Conflict(
            f"{self.location}/{name}: another build has published in the meantime; run the same command again"
        )


class S3Reader:
    """See `RangeReader`; may be used from many threads."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    def read(self, name: str, offset: int, size: int) -> bytes:
        """See `RangeReader`."""
        return self._store.read_range(name, offset, size)

    def close(self) -> None:
        """Nothing is open."""


@functools.lru_cache(maxsize=1)
def _client(process: int) -> Any:
    """One client per process; it may be used from many threads."""
    import boto3
    from botocore.config import Config as Settings

    return boto3.client("s3", config=Settings(retries={"mode": "standard", "max_attempts": 5}, max_pool_connections=32))
