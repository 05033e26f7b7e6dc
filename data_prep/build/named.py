"""Files that rules name: word lists, evaluation sets, models, prompts. What they hold is part of what is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.build.config import MODEL, BuildConfig
from data_prep.filters.config import PixelScores
from dreamline.config import ConfigError, digest
from dreamline.data.collection import CollectionInfo
from dreamline.storage import FileEntry, is_remote, list_files, sha256

FILES = ("banned_file", "head", "hashes", "images", "prompts", "prompt_file")  # keys whose values are files or folders
MODEL_FILES = (".json", ".model", ".safetensors", ".txt")  # those that are read of a model's folder
# What does not change scores: where and how a model runs, and how it is called.
HOW = frozenset(("device", "name", "head_sha256", "sha256", "min_cosine", "linkage"))
ASKED = ("model", "max_tokens", "temperature", "seed")  # what decides about the answers of an endpoint


def named_files(config: BuildConfig) -> dict[str, str]:
    """Digest of the content of every file and folder that a rule names, by its path.

    A file on S3 is told by its entity tag, so it need not be read.

    Raises:
        ConfigError: one is not there.
    """
    content = {name: value for name, value in config.content().items() if name not in ("sources", "fetch")}
    return {path: _digest(key, path) for key, path in sorted(_named(content))}


def models(config: BuildConfig, named: Mapping[str, str]) -> dict[str, str]:
    """What tells the model behind each score and behind the embeddings, by the scorer's name (or the rule's kind)."""
    found = {}
    rules = [rule for rule in config.filters.scorers if not isinstance(rule, PixelScores)]
    embedders = [rule for rule in config.filters.sets if rule.kind == "embedding_duplicates"]
    for rule in (*rules, *embedders):
        values = {name: value for name, value in rule.model_dump(mode="json").items() if name not in HOW}
        if "endpoint" in values:
            values["endpoint"] = {name: values["endpoint"][name] for name in ASKED}
        looked_into = {
            name: named[value] if isinstance(value, str) and value in named else value for name, value in values.items()
        }
        found[getattr(rule, "name", rule.kind)] = digest(looked_into)
    return found


def check_models(before: CollectionInfo | None, now: Mapping[str, str], location: str) -> None:
    """Whether scores and embeddings go with those that a data set holds.

    Raises:
        ConfigError: they are of another model, so the two would be mixed in one column.
    """
    for increment in before.increments if before is not None else ():
        for name, model in increment.models.items():
            if now.get(name, model) != model:
                raise ConfigError(
                    f"{location}: the model of {name!r} is not the one that the data set was built with (weights,"
                    " prompt or settings have changed), and figures of two models may not be mixed; restore it, give"
                    " the scorer another name, or build into another output"
                )


def changed(before: CollectionInfo | None, named: Mapping[str, str]) -> list[str]:
    """Paths of files that are not what they were in the last build that named them."""
    last: dict[str, str] = {}
    for increment in before.increments if before is not None else ():
        last |= increment.files_named
    return [path for path, content in sorted(named.items()) if last.get(path, content) != content]


def _named(values: Any) -> Iterator[tuple[str, str]]:
    """(key, path) of all that is named below some values."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if isinstance(value, str) and (key in FILES or (key == MODEL and Path(value).is_dir())):
                yield key, value
            elif key != "endpoint":
                yield from _named(value)
    elif isinstance(values, Sequence) and not isinstance(values, str):
        for value in values:
            yield from _named(value)


def _digest(key: str, path: str) -> str:
    try:
        files = [file for file in list_files(path) if key != MODEL or file.name.endswith(MODEL_FILES)]
    except OSError as error:
        raise ConfigError(f"{key}: {path}: cannot be read: {error}") from None
    if not files:
        raise ConfigError(f"{key}: {path}: nothing is there; correct the path")
    if len(files) == 1 and files[0].path == path:
        return _content(files[0])
    return digest({file.name: _content(file) for file in files})


def _content(file: FileEntry) -> str:
    return file.version if is_remote(file.path) else sha256(file.path)
