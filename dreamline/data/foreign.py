"""Samples of WebDatasets that others wrote: which member of a sample is its picture, which its text.

A member is called by what follows the key: of `a/0001.source.png` that is `source.png`, in lower case, as the
webdataset package has it. In a `Roles` a name stands for the member of exactly this name, for one that only adds an
extension (`source` for `source.png`), or, behind `json`, for a path into it (`json.caption`, `meta.json.tags.0`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field

from dreamline.config import Config, ConfigError
from dreamline.data.manifest import ShardEntry
from dreamline.data.sample import Kind, Sample
from dreamline.media.errors import MediaError
from dreamline.media.size import read_size

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
TEXTS = ("txt", "text", "caption")
_OURS = {"label", "facts", "width", "height"}  # what the JSON of a record of ours has
NONE = "none"  # as the only name of a role: samples have none

Names = tuple[str, ...]
Place = tuple[str, tuple[str, ...]]  # a member, and the path into it if it holds JSON


class ForeignError(ValueError):
    """A sample that cannot be used.

    Attributes:
        reason: a short word that counts are kept by.
        detail: what was found, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type[ForeignError], tuple[str, str]]:
        return type(self), (self.reason, self.detail)  # crosses processes


class Roles(Config):
    """What holds what: for each role names of members, of which the first that is there counts."""

    image: Names = Field(
        ("target", "output", "edited", "image", *PICTURES), description="the picture; of an edit the result"
    )
    source: Names = Field(("source", "input", "original"), description="what is edited; who has one is an edit")
    mask: Names = Field(("mask",), description="of an edit: white where it may change the picture")
    text: Names = Field(
        (
            *("instruction", *TEXTS, "prompt"),
            *(f"json.{name}" for name in ("instruction", "caption", "text", "prompt", "TEXT")),
        ),
        description="caption or instruction",
    )
    label: Names = Field(("label", "cls", "json.label", "json.edit_type"), description="category or edit type")
    licence: Names = Field(("json.licence", "json.license", "json.LICENSE"), description="of the picture")
    url: Names = Field(("json.url", "json.URL"), description="where the picture comes from")


class IndexedShard(ShardEntry):
    """A tar of others. `sha256` is empty unless the whole file was read."""

    version: str = ""  # changes with the content: the entity tag, or size and time of a local file
    damage: str | None = None  # why it could not be read to its end


def parse_names(role: str, text: str) -> Names:
    """Names from a list with commas.

    Raises:
        ConfigError: there are none.
    """
    names = tuple(name.strip().removeprefix(".") for name in text.split(",") if name.strip())
    if not names:
        raise ConfigError(f"{role}: names no member; write names with commas, or {NONE!r} for none")
    return names


def split_path(name: str) -> Place:
    """Member, and path into it: `meta.json.tags.0` is `meta.json` and (tags, 0)."""
    parts = name.split(".")
    at = parts.index("json") + 1 if "json" in parts else len(parts)
    return ".".join(parts[:at]), tuple(parts[at:])


def find_picture(names: Collection[str], role: Names) -> str | None:
    """The member of a sample that is the picture of a role, or None."""
    return next((name for wanted in role for name in (wanted, *_extended(wanted, PICTURES)) if name in names), None)


def text_places(names: Collection[str], role: Names) -> Iterator[Place]:
    """Where among the members of a sample the text of a role may be, the likeliest place first."""
    for wanted in role:
        member, path = split_path(wanted)
        for name in (member,) if path else (member, *_extended(member, (*TEXTS, "json"))):
            if name in names:
                yield name, path


def read_text(members: Mapping[str, bytes], places: Iterable[Place]) -> tuple[str | None, str | None]:
    """The first text that is not empty, and the member that holds it; (None, None) if there is none.

    Raises:
        ForeignError: `bad_text` (not UTF-8, or no text) or `bad_json`.
    """
    for name, path in places:
        if path or name.rpartition(".")[2] == "json":
            value = _text(_follow(parse_json(name, members[name]), path), name, path)
        else:
            try:
                value = members[name].decode().strip()
            except UnicodeDecodeError as error:
                raise ForeignError("bad_text", f"{name} is not UTF-8: {error}") from None
        if value:
            return value, name
    return None, None


def parse_json(name: str, content: bytes) -> Any:
    """Content of a JSON member.

    Raises:
        ForeignError: `bad_json`.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ForeignError("bad_json", f"{name}: {error}") from None


def measure(name: str, content: bytes) -> tuple[int, int]:
    """Width and height of a picture, px, upright.

    Raises:
        ForeignError: `bad_picture`.
    """
    try:
        found = read_size(content)
    except MediaError as error:
        raise ForeignError("bad_picture", f"{name}: {error}") from None
    assert found is not None, "of a whole file the size is known"
    return found


def to_sample(key: str, members: Mapping[str, bytes], roles: Roles) -> Sample:
    """Make a sample of the members that an index lists of it.

    Args:
        key: of the sample.
        members: content by name, those that `roles` speak of and perhaps others.
        roles: what holds what, as in `index.json`.

    Returns:
        The sample; `facts` is what its member `json` holds, if that is a mapping (of a record of ours its facts). Width
        and height are read from the picture's header.

    Raises:
        ValueError: a member is missing or cannot be read; names the sample.
    """
    try:
        image = find_picture(members, roles.image)
        if image is None:
            raise ForeignError("no_picture", f"has the members {sorted(members)}")
        source = find_picture(members, roles.source)
        mask = find_picture(members, roles.mask) if source is not None else None
        text, _ = read_text(members, text_places(members, roles.text))
        label, _ = read_text(members, text_places(members, roles.label))
        facts = parse_json("json", members["json"]) if "json" in members else {}
        if isinstance(facts, Mapping) and set(facts) == _OURS:
            facts = facts["facts"]
        width, height = measure(image, members[image])
    except ForeignError as error:
        raise ValueError(f"sample {key}: cannot be read: {error}") from None
    kind: Kind = "t2i" if source is None else "edit"
    return Sample(
        key,
        kind,
        text=text or "",
        label=label or "",
        facts=facts if isinstance(facts, Mapping) else {},
        width=width,
        height=height,
        image=members[image],
        source=None if source is None else members[source],
        mask=None if mask is None else members[mask],
    )


def _extended(name: str, extensions: Names) -> Iterator[str]:
    return (f"{name}.{extension}" for extension in extensions)


def _follow(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def _text(value: Any, name: str, path: tuple[str, ...]) -> str | None:
    """A JSON value as text; of a list the first that is not empty."""
    if isinstance(value, list):
        value = next((item for item in value if item), None)
    if value is None:
        return None
    if not isinstance(value, str | int | float):
        where = ".".join((name, *path))
        raise ForeignError("bad_text", f"{where} is no text but {type(value).__name__}; name a path into it")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ForeignError("bad_text", f"{'.'.join((name, *path))} is not valid Unicode") from None
    return text.strip()
