"""From the members of a foreign sample to its row of the index, or to the reason why it has none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.sources.tar_header import Entry, Seekable, TarDamage
from dreamline.data.foreign import NONE, ForeignError, Place, Roles, find_picture, parse_json, read_text, text_places
from dreamline.media.errors import MediaError
from dreamline.media.size import FIRST, read_size

MAX_TEXT = 16 * 2**20  # bytes; larger text members are not read
MAX_PICTURE = 256 * 2**20  # bytes
_TEXT_ROLES = ("text", "label", "licence", "url")
_LARGEST = 1e300  # JSON's integers may have any length, and Python's reader knows infinity and NaN
_NO_SCORES = ("width", "height")  # numbers of the JSON that the index has by itself


@dataclass(frozen=True, slots=True)
class Part:
    """A member as far as it was read."""

    name: str  # what follows the key, in lower case
    entry: Entry
    content: bytes | None  # of a text all of it, of a picture the start, None of others
    size: tuple[int, int] | None = None  # px, of a picture
    wrong: ForeignError | None = None  # why it is of no use


def split_name(name: str) -> tuple[str, str] | None:
    """Key and member of a file: its path up to the first dot behind the last slash, and what follows in lower case.

    Returns:
        None if it belongs to no sample: hidden, or without extension.
    """
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, dot, member = base.partition(".")
    return (f"{folder}{slash}{stem}", member.lower()) if stem and dot and member else None


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8, which one with half of a surrogate pair cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Layout:
    """What samples with the same members have in common.

    Raises:
        ForeignError: they have no picture.
    """

    pictures: tuple[str, ...]  # the image, then the source and the mask of an edit
    texts: dict[str, tuple[Place, ...]]  # by role, where it may be
    edit: bool

    @classmethod
    def of(cls, names: Collection[str], roles: Roles) -> Layout:
        """The layout of a sample with these members."""
        image = find_picture(names, roles.image)
        if image is None:
            raise ForeignError("no_picture", f"none of its members is one: {_listed(names)}; name it with --image")
        source = find_picture(names, roles.source)
        mask = find_picture(names, roles.mask) if source is not None else None
        texts = {role: tuple(text_places(names, getattr(roles, role))) for role in _TEXT_ROLES}
        pictures = tuple(name for name in (image, source, mask) if name is not None)
        return cls(pictures, texts, source is not None)


def is_text(name: str, roles: Roles) -> bool:
    """Whether a member may hold a text that the index needs."""
    return name == "json" or any(any(text_places((name,), getattr(roles, role))) for role in _TEXT_ROLES)


def read_picture(stream: Seekable, entry: Entry, name: str) -> Part:
    """Read the start of a picture, up to where it tells its size; the stream stands at its content.

    Raises:
        TarDamage: the archive ends in it.
    """
    first = _read(stream, entry, 0, min(FIRST, entry.size))
    try:
        size = read_size(first, whole=len(first) == entry.size)
        if size is None and entry.size > MAX_PICTURE:
            return Part(name, entry, first, wrong=_too_large(entry, MAX_PICTURE))
        if size is None:
            size = read_size(first + _read(stream, entry, len(first), entry.size - len(first)))
    except MediaError as error:
        return Part(name, entry, first, wrong=ForeignError("bad_picture", f"{name}: {error}"))
    return Part(name, entry, first, size)


def read_text_part(stream: Seekable, entry: Entry, name: str) -> Part:
    """Read a text; the stream stands at it.

    Raises:
        TarDamage: the archive ends in it.
    """
    if entry.size > MAX_TEXT:
        return Part(name, entry, None, wrong=_too_large(entry, MAX_TEXT))
    return Part(name, entry, _read(stream, entry, 0, entry.size))


def make_row(key: str, parts: Sequence[Part], layout: Layout, roles: Roles) -> dict[str, Any]:
    """The row of a sample, `shard` excepted.

    Args:
        parts: its members in the order of the archive; texts were read, and pictures if their sizes are wanted.

    Raises:
        ForeignError: it cannot be used.
    """
    by_name = {part.name: part for part in parts}
    if len(by_name) < len(parts):
        names = [part.name for part in parts]
        twice = next(name for name in names if names.count(name) > 1)
        raise ForeignError("several_members", f"two members called {twice!r}")
    for name in (*layout.pictures, *(name for found in layout.texts.values() for name, _ in found)):
        if (wrong := by_name[name].wrong) is not None:
            raise wrong
    for name in layout.pictures:
        if not by_name[name].entry.size:
            raise ForeignError("bad_picture", f"{name}: 0 bytes")
    size = _common_size([by_name[name] for name in layout.pictures[: 1 + layout.edit]])
    contents = {part.name: part.content for part in parts if part.content is not None}
    found = {role: read_text(contents, layout.texts[role]) for role in _TEXT_ROLES}
    if found["text"][0] is None and roles.text != (NONE,):
        raise ForeignError("no_text", f"none among {_listed(by_name)}; name it with --text, or --text {NONE}")
    kept = {*layout.pictures, "json", *(found[role][1] for role in ("text", "label"))}
    used = [part for part in parts if part.name in kept]
    return {
        "key": key,
        "kind": "edit" if layout.edit else "t2i",
        **{role: found[role][0] for role in _TEXT_ROLES},
        "text": found["text"][0] or "",
        "label": found["label"][0] or "",
        "width": size[0] if size else None,
        "height": size[1] if size else None,
        "members": [_place(part) for part in used],
        "others": [_place(part) for part in parts if part.name not in kept],
        "scores": _scores(contents.get("json")),
        "digest": _digest(key, used),
    }


def _common_size(pictures: Sequence[Part]) -> tuple[int, int] | None:
    if len({part.size for part in pictures}) > 1:
        told = ", ".join(f"{part.name} {part.size[0]}x{part.size[1]}" for part in pictures if part.size)
        raise ForeignError("geometry_differs", f"{told}: both pictures of an edit need one size")
    return pictures[0].size


def _read(stream: Seekable, entry: Entry, offset: int, size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise TarDamage(f"the archive is cut off at byte {entry.start + offset + len(content)}")
    return content


def _too_large(entry: Entry, limit: int) -> ForeignError:
    return ForeignError("too_large", f"{entry.name}: {entry.size} bytes, at most {limit} are read")


def _listed(names: Any) -> str:
    shown = list(names)
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")


def _place(part: Part) -> dict[str, Any]:
    return {"name": part.name, "offset": part.entry.start, "size": part.entry.size, "sha256": None}


def _scores(content: bytes | None) -> list[tuple[str, float]]:
    """Numbers that the JSON has at its top, by name."""
    values = parse_json("json", content) if content is not None else None
    if not isinstance(values, dict):
        return []
    numbers = {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in _NO_SCORES
    }
    sound = ((name, value) for name, value in numbers.items() if abs(value) < _LARGEST and is_unicode(name))
    return sorted((name, float(value)) for name, value in sound)


def _digest(key: str, parts: Sequence[Part]) -> bytes:
    """16 bytes of hash over names and sizes of a sample's members, its texts, and the first bytes of its pictures."""
    named = [key, *([part.name, part.entry.size] for part in parts)]
    summary = hashlib.sha256(json.dumps(named, separators=(",", ":")).encode())
    for part in parts:
        summary.update(part.content or b"")
    return summary.digest()[:16]
