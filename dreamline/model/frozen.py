"""The frozen encoders of a run: fetched or copied once, in one precision, then only linked."""

from __future__ import annotations

import shutil
from pathlib import Path

from dreamline.config import ConfigError, digest
from dreamline.storage import hash_folder, publish_folder

PARTS = ("vae", "text_encoder", "tokenizer", "processor", "scheduler")


def materialise(source: Path | str, out_dir: Path | str, dtype: str = "float32") -> str:
    """Put VAE, text encoder, tokenizer, processor and scheduler into one folder, atomically.

    Args:
        source: a local folder with these parts (a published checkpoint will do), or a hub id such as `owner/name`
            with an optional `@revision`. Only safetensors weights are taken.
        out_dir: where to put them; what is there already is replaced.
        dtype: precision of the stored weights, so that stock loading code gets the precision that training used.

    Returns:
        Digest of the content.

    Raises:
        ConfigError: a part is missing, or has no safetensors.
    """
    folder = _fetch(str(source))
    for part in PARTS:
        if not (folder / part).is_dir():
            raise ConfigError(f"{source}: no {part}/ there; frozen encoders are a folder with {', '.join(PARTS)}")
    for part in ("vae", "text_encoder"):
        if not list((folder / part).glob("*.safetensors")):
            raise ConfigError(f"{source}: {part}/ has no .safetensors; weights in other formats are not loaded")
    with publish_folder(out_dir) as new:
        for part in PARTS:
            (new / part).mkdir()
            for file in sorted((folder / part).iterdir()):
                if file.suffix == ".safetensors":
                    _convert(file, new / part / file.name, dtype)
                elif file.suffix in (".json", ".txt", ".jinja"):
                    shutil.copyfile(file, new / part / file.name)
    return frozen_digest(out_dir)


def frozen_digest(folder: Path | str) -> str:
    """12 hex digits over the content of every file."""
    return digest(hash_folder(folder))


def _convert(source: Path, target: Path, dtype: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    wanted = getattr(torch, dtype)
    weights = load_file(source)
    weights = {name: value.to(wanted) if value.is_floating_point() else value for name, value in weights.items()}
    save_file(weights, target, metadata={"format": "pt"})


def _fetch(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    # A mistyped local path must not become a question to the hub: its parent folder is there.
    if source.count("/") != 1 or source.startswith((".", "/")) or Path(source).parent.is_dir():
        raise ConfigError(f"{source}: no such folder, and no hub id of the form owner/name")
    from huggingface_hub import snapshot_download

    name, _, revision = source.partition("@")
    patterns = [f"{part}/{end}" for part in PARTS for end in ("*.json", "*.txt", "*.jinja", "*.safetensors")]
    return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
