"""The frozen parts before training: tokenizer, processor, scheduler and the untrained vision-language encoder.

Everything is saved under the class names of the released model, so stock loading code reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from dreamline.model.prompts import (
    EDIT_DROP,
    EDIT_TEMPLATE,
    GENERATE_DROP,
    GENERATE_TEMPLATE,
    edit_prompt,
    generate_prompt,
)
from dreamline.scenes.captions import sample_captioned_scene
from dreamline.scenes.describe import describe
from dreamline.scenes.edits import sample_edit
from dreamline.scenes.sampling import rng_for
from dreamline.scenes.world import World
from dreamline.storage import write_json

END_OF_TEXT = "<|endoftext|>"
VISION = "<|vision_start|><|image_pad|><|vision_end|>"
SPECIAL_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
    *("<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>"),
    "<|video_pad|>",
)
VOCABULARY = 1024  # most tokens; the words of the world and of the templates need fewer
WIDTH = 96  # of the text states
PIXELS = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}  # areas: the forced 512 px square becomes 64 px
# Qwen2's rule for cutting text into words.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def rich_world() -> World:
    """A world with all shapes, sizes, styles and a 3x3 grid, whose words the tokenizer shall know as well."""
    return World(
        size=96,
        grid=3,
        max_objects=5,
        shapes=("circle", "square", "triangle", "star", "diamond", "cross", "ring"),
        sizes=("small", "normal", "large"),
        styles=("filled", "outline"),
        radius=11.0,
    )


def build_tokenizer(seed: int, num_texts: int = 2000, world: World | None = None) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer in which every word of the templates and of the scene world is one token.

    Raises:
        ValueError: the templates' prefixes have another length than the DreamLite pipelines drop.
    """
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS) - 1,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(seed, num_texts, world or World()), trainer)
    state = bpe.get_vocab()
    vocabulary = {token: index for index, (token, _) in enumerate(sorted(state.items(), key=lambda item: item[1]))}
    vocabulary[END_OF_TEXT] = len(vocabulary)
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=_merges(bpe),
        additional_special_tokens=list(SPECIAL_TOKENS),
        model_max_length=4096,
        padding_side="right",
    )
    check_prefixes(tokenizer)
    return tokenizer


def check_prefixes(tokenizer: Any) -> None:
    """Assert what the stock pipelines take for granted: prefixes of exactly 34 and 64 tokens."""
    for template, expected in ((GENERATE_TEMPLATE, GENERATE_DROP), (EDIT_TEMPLATE, EDIT_DROP)):
        length = len(tokenizer(prefix_of(template))["input_ids"])
        if length != expected:
            raise ValueError(f"the prefix has {length} tokens, the pipelines drop {expected}: {prefix_of(template)!r}")


def prefix_of(template: str) -> str:
    """The text in front of what the pipelines keep (the picture's tokens are kept)."""
    return template[: template.index("{}")].removesuffix(VISION)


def _texts(seed: int, count: int, own: World) -> Iterator[str]:
    """Templates often enough that their words are merged first, then texts of the training split."""
    words = " ".join((GENERATE_TEMPLATE, EDIT_TEMPLATE, generate_prompt(""), edit_prompt("")))
    for token in (*SPECIAL_TOKENS, "{}"):
        words = words.replace(token, "\n")
    yield from [words] * count
    for world in (own, rich_world()):
        for index in range(count):
            rng = rng_for(seed, index, "tokenizer")
            yield generate_prompt(sample_captioned_scene(world, rng, "train")[1].text)
            edit = sample_edit(world, rng, "train")
            yield edit_prompt(edit.instruction)
            yield describe(edit.target, world)


def _merges(bpe: Tokenizer) -> list[tuple[str, str]]:
    import json

    pairs: list[tuple[str, str]] = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    return pairs


def build_encoder(tokenizer: Any, seed: int, initializer_range: float = 0.05) -> Qwen3VLForConditionalGeneration:
    """The untrained encoder: 3 text layers of width 96, a vision tower of 2 layers, about 0.7 million parameters.

    A 64 px picture gives 2x2 merged patches, one for each cell of the demo world.
    """
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    marks = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "hidden_size": WIDTH,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 24,
            "max_position_embeddings": 4096,
            "initializer_range": initializer_range,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,  # contexts are short; Qwen's 5e6 would leave most angles at zero
                "mrope_section": [4, 4, 4],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
            "initializer_range": initializer_range,
        },
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=marks["vision_start"],
        vision_end_token_id=marks["vision_end"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return Qwen3VLForConditionalGeneration(config)


def build_image_processor() -> Qwen2VLImageProcessorPil:
    """Pictures to patches, with areas so small that the stock pipelines' 512 px square becomes 4 tokens."""
    return Qwen2VLImageProcessorPil(
        size=PIXELS,
        patch_size=16,
        temporal_patch_size=2,
        merge_size=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        resample=3,
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The released values: the shift depends on the resolution."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
        time_shift_type="exponential",
    )


def save_frame(tokenizer: Any, out_dir: Path) -> None:
    """Write `tokenizer/`, `processor/` and `scheduler/`."""
    processor = out_dir / "processor"
    image_processor = build_image_processor()
    image_processor.save_pretrained(processor)
    # The stock class also has a video part; nothing in this project shows it videos.
    settings = image_processor.to_dict()
    keys = ("size", "patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std", "resample")
    video = {key: settings[key] for key in keys}
    write_json(processor / "video_preprocessor_config.json", {"video_processor_type": "Qwen3VLVideoProcessor", **video})
    write_json(processor / "processor_config.json", {"processor_class": "Qwen3VLProcessor"})
    tokenizer.save_pretrained(processor)
    tokenizer.save_pretrained(out_dir / "tokenizer")
    build_scheduler().save_pretrained(out_dir / "scheduler")


def save_model(model: Any, folder: Path) -> None:
    """Save a model with half-precision weights and a configuration that asks for float32, to keep the asset small."""
    model.save_pretrained(folder, safe_serialization=True)
    for file in folder.glob("*.safetensors"):
        weights = {
            name: value.half() if value.is_floating_point() else value for name, value in load_file(file).items()
        }
        save_file(weights, file, metadata={"format": "pt"})
        file.chmod(0o644)
