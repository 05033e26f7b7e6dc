"""Make frozen parts from nothing: `python -m training.encoders.run --out assets/encoders --threads 1`.

`--config` names another plan than the demo's, for instance conf/demo-long/encoders.yaml.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dreamline.config import ConfigError, build, read_yaml
from dreamline.model.text import TextEncoder
from dreamline.model.vae import load_vae
from dreamline.storage import hash_folder, publish_folder, write_json
from training.encoders.build import build_encoder, build_tokenizer, save_frame, save_model
from training.encoders.config import Plan
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


def make_encoders(out_dir: Path, plan: Plan) -> dict[str, Any]:
    """Train, save and measure VAE, tokenizer, processor, scheduler and text encoder.

    Returns:
        The provenance that is also written to PROVENANCE.json.
    """
    origin = _origin()
    world, tokenizer = plan.world, build_tokenizer(plan.seed, world=plan.world)
    vae, vae_cost = train_vae(world, plan.vae, plan.vae_steps, plan.seed)
    model = build_encoder(tokenizer, plan.seed)
    encoder_cost = train_encoder(model, tokenizer, world, plan.encoder_steps, plan.seed, plan.num_examples)
    return publish_encoders(out_dir, plan, vae, model, {**origin, "vae": vae_cost, "text_encoder": encoder_cost})


def publish_encoders(out_dir: Path, plan: Plan, vae: Any, model: Any, training: dict[str, Any]) -> dict[str, Any]:
    """Save and measure trained parts; the folder appears as a whole and replaces what is there.

    Args:
        training: where the sources come from and what the training reported, for the provenance.
    """
    world, tokenizer = plan.world, build_tokenizer(plan.seed, world=plan.world)
    sizes = {"num_items": plan.num_items, "num_train": min(4000, plan.num_examples), "steps": plan.reader_steps}
    untrained = build_encoder(tokenizer, plan.seed, RANDOM_RANGE).eval()
    with publish_folder(out_dir) as new:
        save_frame(tokenizer, new)
        save_model(vae, new / "vae")
        save_model(model, new / "text_encoder")
        stored = TextEncoder.from_folder(new)
        provenance = {
            "method": METHOD,
            "plan": plan.model_dump(mode="json"),
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
    parser.add_argument("--config", type=Path, help="YAML file of a plan; the demo's by default")
    for name in ("seed", "vae-steps", "encoder-steps", "num-examples"):
        parser.add_argument(f"--{name}", type=int, help="in place of the plan's")
    given = {name: value for name, value in vars(parser.parse_args(words)).items() if value is not None}
    torch.set_num_threads(given.pop("threads"))
    out, path = given.pop("out"), given.pop("config", None)
    try:
        plan = build(Plan, {**(read_yaml(path) if path else {}), **given}, str(path or "the command line"))
    except ConfigError as error:
        parser.error(str(error))
    make_encoders(out, plan)


if __name__ == "__main__":
    main()
