"""Published checkpoints: diffusers folders that the stock DreamLite pipelines load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dreamline.model.frozen import PARTS
from dreamline.model.text import load_processor
from dreamline.storage import link_tree, publish_folder, write_json

INDEX = "model_index.json"
COMPONENTS = {
    "processor": ["transformers", "Qwen3VLProcessor"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen3VLForConditionalGeneration"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "unet": ["diffusers", "DreamLiteUNetModel"],
    "vae": ["diffusers", "AutoencoderTiny"],
}


def publish_pipeline(unet: Any, frozen: Path | str, out_dir: Path | str, mobile: bool) -> None:
    """Write a complete pipeline folder, atomically.

    Args:
        unet: a DreamLiteUNetModel; its `sample_size` is the latent side of the trained resolution.
        frozen: folder of the frozen parts, which are hard-linked, not copied.
        out_dir: the folder to publish.
        mobile: a few-step student, run without guidance by DreamLiteMobilePipeline.
    """
    import diffusers

    with publish_folder(out_dir) as new:
        unet.save_pretrained(new / "unet", safe_serialization=True)
        for part in PARTS:
            link_tree(Path(frozen) / part, new / part)
        name = "DreamLiteMobilePipeline" if mobile else "DreamLitePipeline"
        write_json(new / INDEX, {"_class_name": name, "_diffusers_version": diffusers.__version__, **COMPONENTS})


def load_pipeline(folder: Path | str) -> Any:
    """The stock pipeline of a published folder, of the class that its model_index.json names."""
    import diffusers
    import torch

    name = json.loads((Path(folder) / INDEX).read_text())["_class_name"]
    pipeline = getattr(diffusers, name)
    return pipeline.from_pretrained(
        folder, processor=load_processor(folder), torch_dtype=torch.float32, local_files_only=True
    )
