"""How samples are encoded, and the key of all that the values depend on."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from dreamline.config import Config, ConfigError, digest
from dreamline.media.config import BucketConfig
from dreamline.model import prompts
from dreamline.storage import sha256

Precision = Literal["float16", "bfloat16", "float32"]
TEXTS = (".json", ".txt", ".jinja")  # files that say how a model is built or a prompt is cut into tokens
RECIPE = 1  # raised when this code makes other values of the same samples, encoders and settings
PARTS = ("vae", "text_encoder", "tokenizer", "processor")
ENCODERS = (*PARTS, "templates", "image_side", "states")  # what must be the same when pictures are made


class EncodeSettings(Config):
    """How samples are encoded."""

    batch_size: int = Field(50, ge=1, description="samples encoded together; batches never span shards")
    latent_dtype: Precision = "float32"
    text_dtype: Precision = "float32"
    fit: BucketConfig | None = Field(
        None, description="scale and crop pictures into these buckets; null: they have sizes that fit already"
    )


def cache_key(frozen: Path | str, settings: EncodeSettings) -> dict[str, Any]:
    """All that the values depend on, beside the samples.

    Weights count by their float32 values, so a folder and a copy of it in one precision have one key. The batch size
    counts because sums of another shape round otherwise: the last bits of states and latents differ. Workers, threads,
    paths, and the versions of what only moves bytes do not count.

    Raises:
        ConfigError: a part of the encoders is missing.
    """
    from dreamline.media.jpeg import FASTEST

    folder = Path(frozen)
    texts = [prompts.GENERATE_TEMPLATE, prompts.GENERATE_DROP, prompts.EDIT_TEMPLATE, prompts.EDIT_DROP]
    filled = [prompts.generate_prompt(""), prompts.edit_prompt("")]
    return {
        "recipe": RECIPE,
        **{part: _hash_part(folder / part) for part in PARTS},
        "templates": digest([*texts, prompts.MAX_TOKENS, *filled]),
        "image_side": prompts.IMAGE_SIDE,
        "states": prompts.STATES,
        "transformers": version("transformers"),
        "diffusers": version("diffusers"),
        "jpeg_decoder": FASTEST.name,
        "settings": settings.model_dump(mode="json"),
    }


def check_key(made: dict[str, Any], wanted: dict[str, Any], where: str) -> None:
    """Compare the key of encoded samples with what encoding now would give.

    Raises:
        ConfigError: they differ; names the parts.
    """
    if not made:
        raise ConfigError(f"{where}: does not say by what it was encoded; encode again into another folder")
    differing = sorted(name for name in {*made, *wanted} if made.get(name) != wanted.get(name))
    if differing:
        shown = ", ".join(f"{name} ({made.get(name)}, now {wanted.get(name)})" for name in differing)
        raise ConfigError(f"{where}: was encoded with other {shown}; encode again into another folder, or go back")


def check_encoders(made: dict[str, Any], frozen: Path | str, where: str) -> None:
    """Compare the encoders in the key of encoded samples with those that a model is published with.

    Versions of libraries may differ: nothing is encoded any more.

    Raises:
        ConfigError: they differ; names the parts.
    """
    if made:  # the key is missing in sets of version 1
        now = cache_key(frozen, EncodeSettings())
        check_key({name: made.get(name) for name in ENCODERS}, {name: now[name] for name in ENCODERS}, where)


def _hash_part(folder: Path) -> str:
    """sha256 over the texts and the float32 values of the weights of one part."""
    if not folder.is_dir():
        raise ConfigError(f"{folder.parent}: no {folder.name}/ there; give frozen encoders or a published checkpoint")
    found: dict[str, str] = {path.name: sha256(path) for path in folder.iterdir() if path.suffix in TEXTS}
    for path in folder.glob("*.safetensors"):
        found |= _hash_weights(path)
    found.pop("model.safetensors.index.json", None)  # where weights lie says nothing about them
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _hash_weights(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    found = {}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118  (not a mapping)
            value = file.get_tensor(name)
            value = value.float() if value.is_floating_point() else value
            head = f"{value.dtype} {tuple(value.shape)} ".encode()
            found[f"{name} (weight)"] = hashlib.sha256(head + value.contiguous().numpy().tobytes()).hexdigest()
    return found
