"""Make the demo's frozen parts from nothing: `python -m training.encoders.run --out assets/encoders --threads 1`."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class Plan:
    """How long to train and how much to measure. `num_examples` and `num_items` are per template."""

    seed: int = 0
    vae_steps: int = 5000
    encoder_steps: int = 1500
    num_examples: int = 16_000
    num_items: int = 480
    reader_steps: int = 1200


def make_encoders(out_dir: Path, plan: Plan) -> dict[str, Any]:
    """Train, save and measure VAE, tokenizer, processor, scheduler and text encoder.

    Returns:
        The provenance that is also written to PROVENANCE.json.
    """
    origin = _origin()
    world, tokenizer = World(), build_tokenizer(plan.seed)
    vae, vae_cost = train_vae(world, plan.vae_steps, plan.seed)
    model = build_encoder(tokenizer, plan.seed)
    encoder_cost = train_encoder(model, tokenizer, world, plan.encoder_steps, plan.seed, plan.num_examples)
    return publish_encoders(out_dir, plan, vae, model, {**origin, "vae": vae_cost, "text_encoder": encoder_cost})


def publish_encoders(out_dir: Path, plan: Plan, vae: Any, model: Any, training: dict[str, Any]) -> dict[str, Any]:
    """Save and measure trained parts; the folder appears as a whole and replaces what is there.

    Args:
        training: where the sources come from and what the training reported, for the provenance.
    """
    world, tokenizer = World(), build_tokenizer(plan.seed)
    sizes = {"num_items": plan.num_items, "num_train": min(4000, plan.num_examples), "steps": plan.reader_steps}
    untrained = build_encoder(tokenizer, plan.seed, RANDOM_RANGE).eval()
    with publish_folder(out_dir) as new:
        save_frame(tokenizer, new)
        save_model(vae, new / "vae")
        save_model(model, new / "text_encoder")
        stored = TextEncoder.from_folder(new)
        provenance = {
            "method": METHOD,
            "plan": asdict(plan),
            "training": training,
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in ("torch", "transformers", "diffusers", "tokenizers")},
            "parameters": {"vae": _size(vae), "text_encoder": _size(model)},
            "held_out": {
                "vae": measure_vae(load_vae(new), world, 600, plan.seed + 1),
                "text_encoder": measure_encoder(stored.model, stored.tokenizer, world, plan.seed, **sizes),
                "untrained_text_encoder": measure_encoder(untrained, tokenizer, world, plan.seed, **sizes),
            },
            "sha256": hash_folder(new),
        }
        write_json(new / PROVENANCE, provenance)
    return provenance


def _size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _origin() -> dict[str, Any]:
    """The commit of the sources, and whether they differ from it; "unknown" outside git."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout

    try:
        changes = git("status", "--porcelain", "--", "training/encoders", "dreamline/scenes", "dreamline/model")
        return {"commit": git("rev-parse", "HEAD").strip(), "sources_changed": bool(changes.strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "sources_changed": True}


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced when it is there")
    parser.add_argument("--threads", type=int, default=1, help="compute threads")
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--vae-steps", type=int, default=Plan.vae_steps)
    parser.add_argument("--encoder-steps", type=int, default=Plan.encoder_steps)
    parser.add_argument("--num-examples", type=int, default=Plan.num_examples, help="training prompts per template")
    given = vars(parser.parse_args(words))
    torch.set_num_threads(given.pop("threads"))
    make_encoders(given.pop("out"), Plan(**given))


if __name__ == "__main__":
    main()
