"""Objects on S3 and what is compatible with it. boto3 finds credentials, region and AWS_ENDPOINT_URL by itself.

Errors are those of files and name the URL: FileNotFoundError, PermissionError, FileExistsError, else OSError.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar

SCHEME = "s3://"
PART_SIZE = 64 * 2**20  # bytes; larger files are sent in parts
READ_SIZE = 4 * 2**20  # bytes per request of a file that is read from start to end
ATTEMPTS = 5  # of a request, and of a body that breaks off
_HASH = "sha256"  # metadata key that we keep the content's hash under

Result = TypeVar("Result")


class StorageError(OSError):
    """The store cannot be reached or refuses: no fault of the file, so another attempt may go better."""


class StorageDenied(StorageError, PermissionError):
    """No credentials, or not enough rights."""


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`; the key may be empty.

    Raises:
        ValueError: no bucket.
    """
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    if not url.startswith(SCHEME) or not bucket:
        raise ValueError(f"{url}: not of the form s3://bucket/key")
    return bucket, key


def head(url: str) -> tuple[int, str]:
    """Size in bytes, and the entity tag, which changes with the content."""
    bucket, key = split_url(url)
    if not key:
        raise FileNotFoundError(f"{url}: is a bucket, not an object")
    answer = _ask(url, lambda client: client.head_object(Bucket=bucket, Key=key))
    return int(answer["ContentLength"]), str(answer["ETag"]).strip('"')


def list_prefix(url: str) -> Iterator[tuple[str, int, str]]:
    """URL, size and entity tag of every object whose URL begins so; sorted by the bytes of the key."""
    bucket, prefix = split_url(url)
    token: dict[str, str] = {}
    while True:
        wanted = {"Bucket": bucket, "Prefix": prefix, **token}
        page = _ask(url, methodcaller("list_objects_v2", **wanted))
        for item in page.get("Contents", ()):
            yield f"{SCHEME}{bucket}/{item['Key']}", int(item["Size"]), str(item["ETag"]).strip('"')
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def read_range(url: str, offset: int, size: int, etag: str | None = None) -> bytes:
    """Bytes offset..offset+size-1, fewer at the end of the object.

    Args:
        etag: refuse to read another version of the object.

    Raises:
        OSError: there is another version now.
    """
    if size <= 0:
        return b""
    bucket, key = split_url(url)
    wanted: dict[str, Any] = {"Bucket": bucket, "Key": key, "Range": f"bytes={offset}-{offset + size - 1}"}
    if etag is not None:
        wanted["IfMatch"] = etag
    return _ask(url, lambda client: bytes(client.get_object(**wanted)["Body"].read()), past_end=b"")


def open_read(url: str, buffer_size: int = READ_SIZE) -> io.BufferedReader:
    """A seekable file over ranged reads, all of one version of the object; holds about `buffer_size` bytes."""
    return io.BufferedReader(_Ranges(url), buffer_size)


def put(url: str, content: bytes | Path, if_absent: bool = False) -> bool:
    """Write an object; it appears as a whole, large files by a multipart upload that is aborted on failure.

    Args:
        if_absent: do not replace anything. What is there already must have the same content.

    Returns:
        Whether it was written: False if the same content is there already.

    Raises:
        FileExistsError: `if_absent`, and other content is there.
    """
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    digest = _sha256(content)
    if if_absent and _is_there(url, size, digest):
        return False
    condition = {"IfNoneMatch": "*"} if if_absent else {}
    try:
        _send(url, content, digest, condition)
    except FileExistsError:  # another writer was faster
        if not _is_there(url, size, digest):
            raise
        return False
    return True


def swap(url: str, content: bytes, before: bytes | None) -> None:
    """Replace an object if it still is what it was; of several writers at once one succeeds.

    Args:
        before: the content that must be there; None: nothing may be there.

    Raises:
        FileExistsError: something else is there.
    """
    condition = {"IfNoneMatch": "*"}
    if before is not None:
        try:
            _, etag = head(url)
            now = read_range(url, 0, len(before) + 1, etag)
        except FileNotFoundError:
            now = None
        if now != before:
            raise FileExistsError(f"{url}: has changed")
        condition = {"IfMatch": f'"{etag}"'}
    _send(url, content, _sha256(content), condition)


def get_file(url: str, path: Path) -> None:
    """Copy an object to a local file, which appears as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open_read(url) as source, temporary.open("wb") as target:
            while block := source.read(READ_SIZE):
                target.write(block)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def delete(url: str) -> None:
    """Remove an object; nothing happens if there is none."""
    bucket, key = split_url(url)
    _ask(url, lambda client: client.delete_object(Bucket=bucket, Key=key))


class _Ranges(io.RawIOBase):
    """An object as a raw file: each read is one request."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._position = url, 0
        self._size, self._etag = head(url)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        content = self._read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def readall(self) -> bytes:
        return self._read(self._size)

    def _read(self, num: int) -> bytes:
        wanted = max(0, min(num, self._size - self._position))
        content = read_range(self._url, self._position, wanted, self._etag)
        if len(content) != wanted:
            raise StorageError(f"{self._url}: got {len(content)} bytes at {self._position}, asked for {wanted}")
        self._position += wanted
        return content


def _sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_there(url: str, size: int, digest: str) -> bool:
    """Whether an object has this content. FileExistsError: it has other content."""
    bucket, key = split_url(url)
    try:
        found = _ask(url, lambda client: client.head_object(Bucket=bucket, Key=key))
    except FileNotFoundError:
        return False
    same = int(found["ContentLength"]) == size
    if same:
        known = found.get("Metadata", {}).get(_HASH)
        if known is None:  # not written by us
            with open_read(url) as file:
                known = hashlib.file_digest(file, "sha256").hexdigest()
        same = known == digest
    if not same:
        raise FileExistsError(f"{url}: is there already with other content, and is not replaced")
    return True


def _send(url: str, content: bytes | Path, digest: str, condition: dict[str, str]) -> None:
    if isinstance(content, Path) and content.stat().st_size > PART_SIZE:
        return _send_parts(url, content, digest, condition)
    bucket, key = split_url(url)
    body = content.read_bytes() if isinstance(content, Path) else content
    wanted = {"Bucket": bucket, "Key": key, "Body": body, "Metadata": {_HASH: digest}, **condition}
    _ask(url, lambda client: client.put_object(**wanted, ChecksumAlgorithm="SHA256"))
    return None


def _send_parts(url: str, content: Path, digest: str, condition: dict[str, str]) -> None:
    bucket, key = split_url(url)
    at = {"Bucket": bucket, "Key": key}
    upload = _ask(url, lambda client: client.create_multipart_upload(**at, Metadata={_HASH: digest}))["UploadId"]
    parts: list[dict[str, Any]] = []
    try:
        with content.open("rb") as file:
            while block := file.read(PART_SIZE):
                part = {"PartNumber": len(parts) + 1, "Body": block, "UploadId": upload, **at}
                answer = _ask(url, methodcaller("upload_part", **part))
                parts.append({"PartNumber": part["PartNumber"], "ETag": answer["ETag"]})
        whole = {"MultipartUpload": {"Parts": parts}, "UploadId": upload, **at, **condition}
        _ask(url, lambda client: client.complete_multipart_upload(**whole))
    except BaseException:
        _ask(url, lambda client: client.abort_multipart_upload(**at, UploadId=upload))
        raise


def _ask(url: str, call: Callable[[Any], Result], past_end: Result | None = None) -> Result:
    """Make a request. boto3 repeats one that fails in passing; here also one whose body breaks off."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ReadTimeoutError,
        ResponseStreamingError,
    )

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call(_client(os.getpid(), os.environ.get("AWS_ENDPOINT_URL")))
        except NoCredentialsError:
            raise StorageDenied(f"{url}: no AWS credentials; set them as the AWS command line reads them") from None
        except BotoCoreError as error:
            if attempt == ATTEMPTS or not isinstance(error, ResponseStreamingError | ReadTimeoutError):
                raise StorageError(f"{url}: {error}") from error
            time.sleep(0.2 * 2**attempt)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            if code in ("416", "InvalidRange") and past_end is not None:
                return past_end
            if code in ("409", "ConditionalRequestConflict") and attempt < ATTEMPTS:
                time.sleep(0.2 * 2**attempt)
                continue
            raise _as_os_error(url, code, error) from error
    raise AssertionError("unreachable")


def _as_os_error(url: str, code: str, error: Exception) -> Exception:
    if code == "NoSuchBucket":
        return FileNotFoundError(f"{url}: there is no such bucket")
    if code in ("404", "NoSuchKey", "NotFound"):
        return FileNotFoundError(f"{url}: there is no such object")
    if code in ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"):
        return StorageDenied(f"{url}: access denied ({code}); check the AWS credentials")
    if code in ("412", "PreconditionFailed"):
        return FileExistsError(f"{url}: has changed, or is there already")
    if code in ("501", "NotImplemented"):
        return StorageError(f"{url}: {error}; use a store that knows conditional writes (If-None-Match)")
    return StorageError(f"{url}: {error}")


@functools.lru_cache(maxsize=4)
def _client(_process: int, _endpoint: str | None) -> Any:
    """One client per process (a fork must not share sockets) and address."""
    import boto3
    from botocore.config import Config

    retries = {"total_max_attempts": ATTEMPTS, "mode": "standard"}  # waits longer and longer in between
    return boto3.client("s3", config=Config(retries=retries, connect_timeout=10, read_timeout=60))
