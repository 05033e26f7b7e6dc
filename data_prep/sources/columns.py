"""From the cells of one row to a `Record`, or to the reason why there is none."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from data_prep.record import Picture, Problem, Provenance, Record
from data_prep.sources.presets import Layout
from dreamline.storage import join, read_bytes
from dreamline.storage_s3 import StorageError

Row = Mapping[str, Any]

_BASE64 = ("/9j/", "iVBORw0KGgo", "UklGR", "R0lGOD")  # how JPEG, PNG, WebP and GIF files begin in base64
_PROVENANCE = ("page_url", "licence", "licence_url", "author", "opt_out")


@dataclass(frozen=True)
class BadRow:
    """A row that could not even be split into cells."""

    reason: str
    detail: str


class RowError(ValueError):
    """A row that cannot become a record; becomes a `Problem`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def to_record(row: str, cells: Row | BadRow, layout: Layout, folder: str) -> Record | Problem:
    """Make a record.

    Args:
        row: what names the row.
        cells: by column.
        layout: what they mean.
        folder: where relative paths of pictures start if the layout does not say.
    """
    row = printable(row)
    if isinstance(cells, BadRow):
        return Problem(row, cells.reason, cells.detail)
    try:
        return _record(row, cells, layout, layout.pictures or folder)
    except RowError as error:
        return Problem(row, error.reason, error.detail)


def printable(name: str) -> str:
    """A name with the bytes that are no UTF-8 written out."""
    return name.encode(errors="backslashreplace").decode()


def _record(row: str, cells: Row, layout: Layout, folder: str) -> Record:
    columns = layout.columns
    for column, wanted in layout.where:
        found = _text(cells, (column,), column)
        if found != wanted:
            raise RowError("not_selected", f"{column} is {found!r}, wanted {wanted!r}")
    image = _picture(cells, columns.image, "picture", folder)
    if image is None:
        raise RowError("no_picture", f"nothing in {' or '.join(columns.image)}")
    source = _picture(cells, columns.source, "source picture", folder) if layout.task != "t2i" else None
    kind = layout.task or ("t2i" if source is None else "edit")
    if kind == "edit" and source is None:
        raise RowError("no_picture", f"nothing to edit in {' or '.join(columns.source)}")
    text = _text(cells, columns.text, "text")
    for placeholder in layout.drop_text:
        text = (text or "").replace(placeholder, "").strip() or None
    stated = {name: _text(cells, getattr(columns, name), name) for name in _PROVENANCE}
    stated["licence"] = stated["licence"] or layout.licence
    scores, extra = {}, {}
    for name, column in columns.scores.items():
        value = find(cells, (column,))
        number = _number(value)
        if number is not None:
            scores[name] = number
        elif value is not None:
            extra[name] = _plain(value)
    for column in columns.extra:
        value = find(cells, (column,))
        if value is not None and not isinstance(value, bytes):
            extra[column] = _plain(value)
    return Record(
        row=row,
        kind=kind,
        text=text,
        image=image,
        source=source,
        mask=_picture(cells, columns.mask, "mask", folder) if kind == "edit" else None,
        holes=layout.mask_is == "holes",
        label=_text(cells, columns.label, "label"),
        provenance=Provenance(url=_text(cells, columns.url, "url") or image.url, **stated),
        scores=scores,
        extra=extra,
    )


def find(cells: Row, names: tuple[str, ...]) -> Any:
    """The first of some columns that is there and not empty, or None; a name may be a path, as `files.0.url`."""
    for name in names:
        value = cells.get(name)
        if value is None and "." in name:
            value = cells
            for part in name.split("."):
                if isinstance(value, Mapping):
                    value = value.get(part)
                elif isinstance(value, list) and part.isdigit():
                    value = value[int(part)] if int(part) < len(value) else None
                else:
                    value = None
        if not (value is None or value in ("", b"", []) or (isinstance(value, float) and math.isnan(value))):
            return value
    return None


def _text(cells: Row, names: tuple[str, ...], what: str) -> str | None:
    """A cell as text: of a list the first that is not empty, of bytes UTF-8."""
    value = find(cells, names)
    if isinstance(value, list):
        value = next((item for item in value if item), None)
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, Mapping | list):
        raise RowError("bad_text", f"{what} is no text but {type(value).__name__}; name a path into it")
    return _utf8(str(value), what).strip() or None


def _utf8(text: str, what: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RowError("not_utf8", f"{what} is not valid UTF-8") from None
    return text


def _number(value: Any) -> float | None:
    """A finite number, also where a list has only text; else None."""
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _plain(value: Any) -> str:
    """Any cell as text; what is no valid UTF-8 is marked."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode(errors="replace").decode()


def _picture(cells: Row, names: tuple[str, ...], what: str, folder: str) -> Picture | None:
    """A cell as a picture: bytes, {bytes, path}, URL, path, base64, or a list of one of them."""
    value = find(cells, names)
    if isinstance(value, list):
        items = [item for item in value if item]
        if len(items) > 1:
            raise RowError("several_pictures", f"{len(items)} pictures where one {what} is expected")
        value = items[0] if items else None
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path") or value.get("src") or value.get("url")
    if value is None:
        return None
    if isinstance(value, bytes | bytearray | memoryview):
        return Picture(content=bytes(value))
    if not isinstance(value, str):
        raise RowError("bad_picture", f"the {what} is neither bytes, URL nor path, but {type(value).__name__}")
    text = _utf8(value, what).strip()
    if text.startswith("data:") or (len(text) > 256 and text.startswith(_BASE64)):
        return Picture(content=_decode(text.partition(",")[2] if text.startswith("data:") else text, what))
    if "://" in text:
        return Picture(url=text)
    return _beside(text, what, folder) if text else None


def _decode(text: str, what: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RowError("bad_picture", f"the {what} is not valid base64: {error}") from None


def _beside(path: str, what: str, folder: str) -> Picture:
    """The picture of a relative path. A row may not reach outside the folder of its source."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise RowError("unsafe_path", f"the {what} {path!r} is not a path below {folder}")
    name = "/".join(parts)
    if folder.startswith(("http://", "https://")):
        return Picture(url=join(folder, quote(name, safe="/%")))
    place = join(folder, name)
    try:
        return Picture(content=read_bytes(place))
    except StorageError:
        raise
    except FileNotFoundError:
        raise RowError("missing_picture", f"the {what} {place} is not there") from None
    except OSError as error:
        raise RowError("missing_picture", f"the {what} {place} cannot be read: {error}") from None
