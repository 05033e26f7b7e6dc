"""The frozen vision-language encoder: prompts, and for edits source pictures, become hidden states.

The states are those after the final norm, as the stock pipelines read them with transformers 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dreamline.config import ConfigError
from dreamline.model.prompts import (
    EDIT_DROP,
    EDIT_TEMPLATE,
    GENERATE_DROP,
    GENERATE_TEMPLATE,
    IMAGE_SIDE,
    MAX_TOKENS,
    edit_prompt,
    generate_prompt,
)


@cache
def _processor_class() -> type[Any]:
    from transformers import Qwen3VLProcessor
    from transformers.processing_utils import ProcessorMixin

    class PictureProcessor(Qwen3VLProcessor):  # type: ignore[misc]
        """Qwen3VLProcessor without its video part, which cannot be built where torchvision is missing."""

        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            for name in ("image", "video", "vision_start", "vision_end"):
                token = f"<|{name}_pad|>" if name in ("image", "video") else f"<|{name}|>"
                setattr(self, f"{name}_token", token)
                setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    return PictureProcessor


def load_processor(folder: Path | str) -> Any:
    """The processor of a folder with `processor/` and `tokenizer/`, also where torchvision is missing.

    Give it to the stock pipelines: `DreamLitePipeline.from_pretrained(folder, processor=load_processor(folder))`.
    """
    from transformers import Qwen2TokenizerFast
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    image_processor = Qwen2VLImageProcessorPil.from_pretrained(Path(folder) / "processor", local_files_only=True)
    tokenizer = Qwen2TokenizerFast.from_pretrained(Path(folder) / "tokenizer", local_files_only=True)
    return _processor_class()(image_processor, tokenizer)


@dataclass(frozen=True)
class Looks:
    """Pictures as the encoder sees them: slow to make, so made once for all prompts about a picture."""

    patches: Tensor  # [B, P, D] float, the patches of each square
    grids: Tensor  # [B, 3] int64: frames, rows and columns of patches

    def __len__(self) -> int:
        return len(self.grids)

    def __getitem__(self, rows: list[int]) -> Looks:
        return Looks(self.patches[rows], self.grids[rows])


class TextEncoder:
    """Qwen3-VL with its tokenizer and processor; the language-model head is never run.

    Attributes:
        hidden_size: width D of the states.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor, self.tokenizer = model, processor, processor.tokenizer
        self.hidden_size = int(model.config.text_config.hidden_size)
        for template, drop, name in (
            (GENERATE_TEMPLATE, GENERATE_DROP, "generation"),
            (EDIT_TEMPLATE, EDIT_DROP, "edit"),
        ):
            prefix = template[: template.index("{}")].replace("<|vision_start|><|image_pad|><|vision_end|>", "")
            length = len(self.tokenizer(prefix)["input_ids"])
            if length != drop:
                raise ConfigError(
                    f"the tokenizer makes {length} tokens of the {name} prefix, the DreamLite pipelines drop {drop}; "
                    "use a tokenizer that was made for these templates"
                )

    @classmethod
    def from_folder(cls, folder: Path | str) -> TextEncoder:
        """Load `text_encoder/`, `tokenizer/` and `processor/` of a folder, float32, frozen.

        Raises:
            ConfigError: a part is missing, or the template prefixes have another length than the pipelines drop.
        """
        from transformers import Qwen3VLForConditionalGeneration

        for part in ("text_encoder", "tokenizer", "processor"):
            if not (Path(folder) / part).is_dir():
                raise ConfigError(f"{folder}: no {part}/ there; give frozen encoders or a published checkpoint")
        model = Qwen3VLForConditionalGeneration.from_pretrained(
            Path(folder) / "text_encoder", dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        return cls(model.requires_grad_(False).eval(), load_processor(folder))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    def encode_generate(self, prompts: Sequence[str]) -> list[Tensor]:
        """States of captions, each [L_i, D]: the user's text with its task token, and the 5 tokens behind it."""
        return self._texts([generate_prompt(prompt) for prompt in prompts])

    def null_generate(self) -> Tensor:
        """States of the empty generation prompt, [5, D]."""
        return self._texts([""])[0]

    def look(self, images: Sequence[Image.Image]) -> Looks:
        """At source pictures, each squeezed to the square that the stock pipelines show the encoder."""
        squares = [image.convert("RGB").resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.LANCZOS) for image in images]
        seen = self.processor.image_processor(images=squares, return_tensors="pt")
        return Looks(seen["pixel_values"].unflatten(0, (len(images), -1)), seen["image_grid_thw"])

    def encode_edit(self, instructions: Sequence[str], looks: Looks) -> list[Tensor]:
        """States of instructions with source pictures, each [L_i, D]: picture tokens, text, and the 5 tokens behind."""
        return self.edits([edit_prompt(instruction) for instruction in instructions], looks)

    def null_edit(self, looks: Looks) -> list[Tensor]:
        """States of the empty instruction with each picture."""
        return self.edits([""] * len(looks), looks)

    def num_image_tokens(self, looks: Looks) -> list[int]:
        """Number of leading states of an edit that belong to the picture (with its start and end token).

        The decoder is causal: these states are the same for every instruction.
        """
        return [number + 2 for number in self._num_merged(looks)]

    def _num_merged(self, looks: Looks) -> list[int]:
        merge = self.processor.image_processor.merge_size**2
        return [int(grid.prod()) // merge for grid in looks.grids]

    def _texts(self, prompts: Sequence[str]) -> list[Tensor]:
        tokens = self.tokenizer(
            [GENERATE_TEMPLATE.format(prompt) for prompt in prompts],
            max_length=MAX_TOKENS + GENERATE_DROP,
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        return self._states(tokens, GENERATE_DROP)

    def edits(self, prompts: Sequence[str], looks: Looks) -> list[Tensor]:
        """States of complete user texts with source pictures."""
        return self._states(self.tokens(prompts, looks), EDIT_DROP)

    def tokens(self, prompts: Sequence[str], looks: Looks) -> Any:
        """What the processor makes of the filled edit template and the pictures: the model's inputs."""
        picture = self.processor.image_token
        texts = [
            EDIT_TEMPLATE.replace(picture, picture * number).format(prompt)
            for prompt, number in zip(prompts, self._num_merged(looks), strict=True)
        ]
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt")
        tokens["mm_token_type_ids"] = (tokens["input_ids"] == self.processor.image_token_id).long()
        tokens["pixel_values"], tokens["image_grid_thw"] = looks.patches.flatten(0, 1), looks.grids
        return tokens

    @torch.no_grad()
    def _states(self, tokens: Any, drop: int) -> list[Tensor]:
        tokens = tokens.to(self.device)
        hidden = self.model.model(**tokens).last_hidden_state
        lengths = tokens["attention_mask"].sum(1).tolist()
        return [row[drop:length] for row, length in zip(hidden, lengths, strict=True)]


def pad(states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack states of different length: [B, L, D] padded with zeros, and the mask [B, L] int64 (1 = token)."""
    lengths = torch.tensor([len(row) for row in states], device=states[0].device)
    padded = pad_sequence(list(states), batch_first=True)
    mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
    return padded, mask.long()
