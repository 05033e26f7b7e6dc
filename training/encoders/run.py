"""Make the demo's frozen parts from nothing: `python -m training.encoders.run --out assets/encoders --threads 1`."""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dreamline.model.text import TextEncoder
from dreamline.model.vae import load_vae
from dreamline.scenes.world import World
from dreamline.storage import hash_folder, publish_folder, write_json
from training.encoders.build import build_encoder, build_tokenizer, save_frame, save_model
from training.encoders.language import train_encoder
from training.encoders.measure import measure_encoder
from training.encoders.vae import measure_vae, train_vae

PROVENANCE = "PROVENANCE.json"
RANDOM_RANGE = 0.15  # initial weights of the untrained encoder that the trained one is compared with
METHOD = (
    "Everything is trained from random weights on synthetic scenes of the training split; no other weights or data. "
    "The text encoder learns to answer captions, edits and pictures in canonical words, and at the same time to let a "
    "small cross-attention reader (thrown away afterwards) find the wanted scene in its last states. Those states are "
    "therefore shaped for the kind of reader that a U-Net is. The measurements fit a new reader to frozen states."
)


def make_encoders(
    out_dir: Path,
    *,
    seed: int = 0,
    vae_steps: int = 5000,
    encoder_steps: int = 1500,
    num_examples: int = 16_000,
    num_items: int = 480,
    reader_steps: int = 1200,
) -> dict[str, Any]:
    """Train, save and measure VAE, tokenizer, processor, scheduler and text encoder; the folder appears as a whole.

    Args:
        out_dir: what is there already is replaced.
        num_examples: training prompts of each template, and at least the reader's.
        num_items: held-out prompts and held-out edits to measure with.

    Returns:
        The provenance that is also written to PROVENANCE.json.
    """
    world, begin = World(), time.monotonic()
    commit, changed = _commit()
    tokenizer = build_tokenizer(seed)
    vae, vae_cost = train_vae(world, vae_steps, seed)
    model = build_encoder(tokenizer, seed)
    encoder_cost = train_encoder(model, tokenizer, world, encoder_steps, seed, num_examples)
    sizes = {"num_items": num_items, "num_train": min(4000, num_examples), "steps": reader_steps}
    untrained = build_encoder(tokenizer, seed, RANDOM_RANGE).eval()
    with publish_folder(out_dir) as new:
        save_frame(tokenizer, new)
        save_model(vae, new / "vae")
        save_model(model, new / "text_encoder")
        stored = TextEncoder.from_folder(new)
        provenance = {
            "method": METHOD,
            "commit": commit,
            "sources_changed_since": changed,
            "seed": seed,
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("torch", "transformers", "diffusers", "tokenizers")},
            "vae": {
                "steps": vae_steps,
                "parameters": _size(vae),
                "training": vae_cost,
                "held_out": measure_vae(load_vae(new), world, 600, seed + 1),
            },
            "text_encoder": {
                "steps": encoder_steps,
                "examples_per_template": num_examples,
                "parameters": _size(model),
                "tokens": len(tokenizer),
                "training": encoder_cost,
                "held_out": measure_encoder(stored.model, stored.tokenizer, world, seed, **sizes),
                "held_out_untrained": measure_encoder(untrained, tokenizer, world, seed, **sizes),
            },
            "wall_seconds": round(time.monotonic() - begin),
            "sha256": hash_folder(new),
        }
        write_json(new / PROVENANCE, provenance)
    return provenance


def _size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _commit() -> tuple[str, bool]:
    """The commit of the sources, and whether training/encoders or dreamline differ from it; "unknown" outside git."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout

    try:
        changes = git("status", "--porcelain", "--", "training/encoders", "dreamline/scenes", "dreamline/model")
        return git("rev-parse", "HEAD").strip(), bool(changes.strip())
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced when it is there")
    parser.add_argument("--threads", type=int, default=1, help="compute threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vae-steps", type=int, default=5000)
    parser.add_argument("--encoder-steps", type=int, default=1500)
    parser.add_argument("--examples", type=int, default=16_000, help="training prompts of each template")
    given = parser.parse_args(words)
    torch.set_num_threads(given.threads)
    make_encoders(
        given.out,
        seed=given.seed,
        vae_steps=given.vae_steps,
        encoder_steps=given.encoder_steps,
        num_examples=given.examples,
    )


if __name__ == "__main__":
    main()
