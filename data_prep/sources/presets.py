"""From a source's configuration and its preset to one layout: what a row of it means."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data_prep.sources.config import Columns, MaskIs, SourceConfig, SourceKind
from dreamline.config import Config, ConfigError, build, read_yaml
from dreamline.data.sample import Kind

PICTURES = ("image", "source", "mask")

# What columns are commonly called, for sources without a preset.
_TEXTS = ("caption", "text", "prompt", "TEXT")
_DEFAULTS = {
    "url_list": Columns(image=("url", "URL", "image_url"), text=_TEXTS),
    "parquet": Columns(image=("image", "jpg", "png", "webp", "image_bytes"), text=_TEXTS),
    "webdataset": Columns(
        image=("image", "target"),
        source=("source",),
        mask=("mask",),
        text=("instruction", "text", *(f"json.{name}" for name in ("instruction", *_TEXTS)), "caption", "prompt"),
        label=("json.label", "json.edit_type"),
        url=("json.url",),
        licence=("json.licence", "json.license"),
        author=("json.author",),
    ),
    "folder": Columns(
        image=("file_name", "target_file_name", "edited_file_name", "target_image"),
        source=("source_file_name", "input_file_name", "original_file_name", "source_image"),
        mask=("mask_file_name",),
        text=("instruction", "edit_instruction", "edit_prompt", *_TEXTS),
        label=("label", "edit_type", "category"),
        url=("url", "source_url"),
        licence=("licence", "license"),
        author=("author", "artist", "credit"),
    ),
}


class Preset(Config):
    """What is known of a public data set."""

    about: str
    kinds: tuple[SourceKind, ...]
    task: Kind
    columns: Columns
    mask_is: MaskIs = "white"
    licence: str | None = None
    terms: str | None = None
    pictures: str | None = None
    header: tuple[str, ...] | None = None
    where: dict[str, str] = {}
    drop_text: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """What a row of a source means."""

    columns: Columns
    task: Kind | None = None  # None: a row with a source picture is an edit
    required: tuple[
        tuple[str, tuple[str, ...]], ...
    ] = ()  # key of the configuration, columns of which one must be there
    mask_is: MaskIs = "white"
    pictures: str | None = None
    where: tuple[tuple[str, str], ...] = ()
    licence: str | None = None
    drop_text: tuple[str, ...] = ()  # placeholders that are no part of the text
    header: tuple[str, ...] | None = None
    quotes: bool | None = None

    def check(self, file: str, there: Iterable[str]) -> None:
        """Whether a file has the columns.

        Raises:
            ConfigError: names the file, what is missing, what is there, and the key to set.
        """
        names = set(there)
        for key, group in self.required:
            parts = [name.split(".") for name in group]
            if not any(".".join(path[:end]) in names for path in parts for end in range(len(path), 0, -1)):
                found = ", ".join(sorted(names)[:40]) or "none"
                raise ConfigError(
                    f"{file}: no column {' or '.join(map(repr, group))}; there are: {found}; "
                    f"name the right one as {key}, or null if the source has none"
                )

    def names(self) -> set[str]:
        """The top-level columns that can be of use."""
        columns = self.columns
        groups = [value for value in columns.__dict__.values() if isinstance(value, tuple)]
        wanted = [name for group in groups for name in group] + list(columns.scores.values())
        wanted += [column for column, _ in self.where]
        return {part for name in wanted for part in (name, name.partition(".")[0])}


@functools.cache
def presets() -> dict[str, Preset]:
    """All presets by name."""
    path = Path(__file__).with_name("presets.yaml")
    return {name: build(Preset, values, f"{path.name}: {name}") for name, values in read_yaml(path).items()}


def layout_of(config: SourceConfig) -> Layout:
    """Merge what a configuration says over its preset, or over common names.

    Raises:
        ConfigError: no such preset, or it is for another kind of source.
    """
    preset = _preset(config)
    columns = preset.columns if preset else _DEFAULTS.get(config.kind, Columns())
    given = config.columns.model_fields_set if config.columns is not None else set[str]()
    required = {
        f"columns.{key}": tuple(getattr(columns, key))
        for key in ("image", "source", "text")
        if key not in given and (key == "image" or preset is not None) and getattr(columns, key)
    }
    if preset is None and config.kind in ("url_list", "parquet", "folder") and "text" not in given:
        required["columns.text"] = columns.text
    if config.columns is not None:
        columns = columns.model_copy(update={key: getattr(config.columns, key) for key in given})
        for key in sorted(given - {"scores", "extra"}):
            required[f"columns.{key}"] = getattr(columns, key)
        if "scores" in given:
            required |= {f"columns.scores.{name}": (column,) for name, column in columns.scores.items()}
        if "extra" in given:
            required |= {f"columns.extra ({column})": (column,) for column in columns.extra}
    where = config.where or (preset.where if preset else {})
    required |= {f"where.{column}": (column,) for column in where}
    task = config.task or (preset.task if preset else None)
    if task == "edit" and not columns.source:
        raise ConfigError(f"{config.path}: task: edit needs columns.source, the column with the picture to edit")
    return Layout(
        columns=columns,
        task=task,
        required=tuple((key, group) for key, group in sorted(required.items()) if group),
        mask_is=config.mask_is or (preset.mask_is if preset else "white"),
        pictures=config.pictures or (preset.pictures if preset else None),
        where=tuple(sorted(where.items())),
        licence=config.licence or (preset.licence if preset else None),
        drop_text=preset.drop_text if preset else (),
        header=config.header or (preset.header if preset else None),
        quotes=config.quotes,
    )


def _preset(config: SourceConfig) -> Preset | None:
    if config.preset is None:
        return None
    known = presets()
    if config.preset not in known:
        raise ConfigError(f"preset: there is no {config.preset!r}; there are: {', '.join(sorted(known))}")
    preset = known[config.preset]
    if config.kind not in preset.kinds:
        kinds = " or ".join(preset.kinds)
        raise ConfigError(f"preset: {config.preset} is for kind: {kinds}, not for kind: {config.kind}")
    return preset
