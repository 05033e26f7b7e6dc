"""Configuration: frozen pydantic models, two layers of YAML at most, dotted overrides and a stable digest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file, the key and the cure."""


class Config(BaseModel):
    """Base of every configuration: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Input(Config):
    """One artefact that a job reads: where it lies, and the digest of the job that made it."""

    path: str
    digest: str


class Runtime(Config):
    """How a job is carried out. Nothing here changes results on one kind of machine, so none of it is digested."""

    workers: int = Field(1, ge=1, description="worker processes, one device (or one CPU core) each")
    threads: int = Field(1, ge=1, description="compute threads per worker on CPU")
    tracking_uri: str | None = Field(None, description="MLflow address; nothing is tracked or registered without one")
    backend: str = Field("deepspeed", pattern="^(deepspeed|local)$", description="'local' is plain torch, one worker")
    log_every: int = Field(20, ge=1, description="optimiser steps between two lines of metrics")
    read_ahead: int = Field(2, ge=0, description="micro-batches that are read before they are needed; 0: none")
    checkpoint_every: int = Field(200, ge=1, description="optimiser steps between two resumable checkpoints")


class Job(Config):
    """One resolved job, the only file that crosses processes: RUN/config.yaml.

    `stage` (what is computed) and the inputs' digests make the job's identity; `runtime` does not.
    """

    recipe_version: ClassVar[int] = 1  # raised by a room when the same configuration gives other results

    preset: str
    run_dir: str
    inputs: dict[str, Input] = {}
    runtime: Runtime = Runtime()
    stage: Config

    def digest(self) -> str:
        """12 hex digits that name the result of this job."""
        return digest(
            {
                "stage": self.stage.model_dump(mode="json"),
                "inputs": {name: item.digest for name, item in self.inputs.items()},
                "recipe": f"{type(self).__module__}:{self.recipe_version}",
            }
        )

    def input(self, name: str) -> Path:
        """Path of an input.

        Raises:
            ConfigError: the job has no such input.
        """
        if name not in self.inputs:
            raise ConfigError(f"inputs.{name} is missing (there are: {sorted(self.inputs) or 'none'}); add its path")
        return Path(self.inputs[name].path)


T = TypeVar("T", bound=Config)


def digest(value: Config | Mapping[str, Any] | Sequence[Any]) -> str:
    """First 12 hex digits of the sha256 of the canonical JSON of a value."""
    plain = value.model_dump(mode="json") if isinstance(value, Config) else value
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping, with its `base:` file (relative to it) merged underneath. At most two layers.

    Raises:
        ConfigError: no such file, not a mapping, or a base that has a base itself.
    """
    layer = _read_layer(Path(path))
    base = layer.pop("base", None)
    if base is None:
        return layer
    below = _read_layer(Path(path).parent / base)
    if "base" in below:
        raise ConfigError(f"{base}: a base may not have a base itself; merge the two files")
    return merge(below, layer)


def load(cls: type[T], path: str | Path, overrides: Sequence[str] = (), **extra: Any) -> T:
    """Load a configuration.

    Args:
        cls: the model to fill.
        path: a YAML file.
        overrides: dotted assignments such as `stage.steps=100`; values are YAML.
        extra: top-level keys that the file does not hold.

    Raises:
        ConfigError: names the file, every wrong key and what is wrong with it.
    """
    values = merge(read_yaml(path), extra)
    for item in overrides:
        apply_override(values, item)
    return build(cls, values, str(path))


def build(cls: type[T], values: Mapping[str, Any], origin: str) -> T:
    """Validate a mapping; errors name `origin` and every wrong key."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
        known = ", ".join(cls.model_fields)
        raise ConfigError(
            f"{origin}: not a valid {cls.__name__}\n" + "\n".join(lines) + f"\n  (keys: {known})"
        ) from None


def dump(config: Config, path: str | Path) -> None:
    """Write a configuration as YAML, atomically."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    temporary.replace(target)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge of two mappings; lists and scalars of `above` replace those of `below`."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def apply_override(values: dict[str, Any], item: str) -> None:
    """Set one dotted key in place.

    Raises:
        ConfigError: the item is not `a.b.c=value`, or goes through something that is no mapping.
    """
    key, sign, text = item.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"override {item!r} is not of the form key.sub=value")
    *parents, last = key.strip().split(".")
    node = values
    for part in parents:
        child = node.get(part)
        node[part] = dict(child) if isinstance(child, Mapping) else {}
        if child is not None and not isinstance(child, Mapping):
            raise ConfigError(f"override {item!r}: {part!r} is a value, not a group")
        node = node[part]
    node[last] = yaml.safe_load(text)


def _read_layer(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        value = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: must hold a mapping, found {type(value).__name__}")
    return value
