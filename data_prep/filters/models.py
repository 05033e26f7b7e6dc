"""Scorers with weights: CLIP or SigLIP, image classifiers, and the aesthetic head, loaded by `transformers`.

Weights come from a folder (then nothing is looked up elsewhere) or from a hub repository. Pictures are prepared by the
processors that need only PIL and numpy.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from data_prep.filters.candidate import Candidate
from data_prep.filters.config import Aesthetic, Classifier, Similarity, Weights
from data_prep.filters.scorers import MISSING, Scorer
from dreamline.config import ConfigError

Pixels = NDArray[np.uint8]


def open_model_scorer(rule: Aesthetic | Classifier | Similarity) -> Scorer:
    """Load a model and make its scorer.

    Raises:
        ConfigError: weights are missing, damaged, or not those that the configuration names.
    """
    match rule:
        case Aesthetic():
            return AestheticScorer(rule)
        case Classifier():
            return ClassifierScorer(rule)
        case Similarity():
            return SimilarityScorer(rule)


class ImageEmbedder:
    """Unit-length picture embeddings of CLIP or SigLIP, or the pooled output of another vision model (DINOv2)."""

    def __init__(self, weights: Weights) -> None:
        from transformers import AutoModel

        self.weights = weights
        self.model, self.version = _load(AutoModel, weights)
        self.processor = _image_processor(weights)

    def tensor(self, images: Sequence[Pixels]) -> Tensor:
        """[B, D] float32 on the model's device, of pictures [H, W, 3]."""
        values = _pixel_values(self.processor, images, self.weights)
        with torch.inference_mode():
            if hasattr(self.model, "get_image_features"):
                found = self.model.get_image_features(pixel_values=values)
            else:
                found = self.model(pixel_values=values)
        return nn.functional.normalize(_pooled(found).float(), dim=-1)

    def embed(self, batch: Sequence[Candidate]) -> NDArray[np.float16]:
        """[B, D] float16."""
        return np.asarray(self.tensor([candidate.image for candidate in batch]).cpu().numpy(), np.float16)


class AestheticScorer:
    """A stack of linear layers over the CLIP embedding, as LAION's improved aesthetic predictor is one."""

    def __init__(self, rule: Aesthetic) -> None:
        self.name = rule.name
        self.missing: Counter[str] = Counter()
        self.embedder = ImageEmbedder(rule)
        self.head, digest = load_head(Path(rule.head), rule.head_sha256)
        self.head.to(rule.device)
        taken = next(self.head.parameters()).shape[1]
        given = self.embedder.tensor([np.zeros((32, 32, 3), np.uint8)]).shape[1]
        if given != taken:
            raise ConfigError(f"{rule.head}: takes {taken} numbers, but {rule.model} gives {given}")
        self.version = f"{self.embedder.version}-{digest[:12]}"

    def score(self, batch: Sequence[Candidate]) -> dict[str, list[float]]:
        """About 1 to 10 with LAION's head."""
        embeddings = self.embedder.tensor([candidate.image for candidate in batch])
        with torch.inference_mode():
            return {self.name: self.head(embeddings)[:, 0].tolist()}


class ClassifierScorer:
    """Summed probability of chosen labels of an image classifier."""

    def __init__(self, rule: Classifier) -> None:
        from transformers import AutoModelForImageClassification

        self.name, self.weights = rule.name, rule
        self.missing: Counter[str] = Counter()
        self.model, self.version = _load(AutoModelForImageClassification, rule)
        self.processor = _image_processor(rule)
        known = {str(label).casefold(): int(index) for index, label in self.model.config.id2label.items()}
        unknown = [label for label in rule.labels if label.casefold() not in known]
        if unknown:
            raise ConfigError(f"{self.name}: {rule.model} has no label {unknown[0]!r} (it has: {', '.join(known)})")
        self.columns = [known[label.casefold()] for label in rule.labels]

    def score(self, batch: Sequence[Candidate]) -> dict[str, list[float]]:
        """In [0, 1]."""
        values = _pixel_values(self.processor, [candidate.image for candidate in batch], self.weights)
        with torch.inference_mode():
            logits = self.model(pixel_values=values).logits
        return {self.name: logits.float().softmax(-1)[:, self.columns].sum(-1).clamp(0, 1).tolist()}


class SimilarityScorer:
    """Cosine of a picture's and its text's embeddings."""

    def __init__(self, rule: Similarity) -> None:
        from transformers import AutoTokenizer

        self.name = rule.name
        self.missing: Counter[str] = Counter()
        self.embedder = ImageEmbedder(rule)
        self.version = self.embedder.version
        self.tokenizer = AutoTokenizer.from_pretrained(rule.model, **_where(rule))
        self.length = int(self.embedder.model.config.text_config.max_position_embeddings)

    def score(self, batch: Sequence[Candidate]) -> dict[str, list[float]]:
        """In [-1, 1]; NaN for a row without text. Longer texts are cut at the model's length."""
        rows = [index for index, candidate in enumerate(batch) if (candidate.record.text or "").strip()]
        self.missing["no_text"] += len(batch) - len(rows)
        values = [MISSING] * len(batch)
        if rows:
            pictures = self.embedder.tensor([batch[index].image for index in rows])
            texts = self._texts([batch[index].record.text or "" for index in rows])
            for index, value in zip(rows, (pictures * texts).sum(-1).tolist(), strict=True):
                values[index] = value
        return {self.name: values}

    def _texts(self, texts: list[str]) -> Tensor:
        # SigLIP was trained on texts padded to full length; CLIP does not care, as it masks padding.
        model = self.embedder.model
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        ).to(model.device)
        wanted = {name: value for name, value in tokens.items() if name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            return nn.functional.normalize(_pooled(model.get_text_features(**wanted)).float(), dim=-1)


def load_head(path: Path, sha256: str | None = None) -> tuple[nn.Sequential, str]:
    """A stack of linear layers from the names `<anything>.<number>.weight` (and bias), in the order of the numbers.

    Returns:
        the layers, and the file's sha256.

    Raises:
        ConfigError: no such file, another content than `sha256`, or no such stack in it.
    """
    digest = check_file(path, sha256)
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        names = sorted((name for name in state if name.endswith("weight")), key=_number)
        layers = [_linear(state[name], state[name.removesuffix("weight") + "bias"]) for name in names]
    except Exception as error:
        raise ConfigError(f"{path}: not the weights of linear layers: {type(error).__name__}: {error}") from None
    fits = all(one.out_features == other.in_features for one, other in pairwise(layers))
    if not layers or not fits or layers[-1].out_features != 1:
        raise ConfigError(f"{path}: its layers do not make a stack that ends in one number")
    return nn.Sequential(*layers).eval().requires_grad_(False), digest


def check_file(path: Path, sha256: str | None) -> str:
    """sha256 of a file, in hex.

    Raises:
        ConfigError: no such file, or not the digest that is wanted.
    """
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: weights cannot be read: {error.strerror}") from None
    if sha256 is not None and found != sha256:
        raise ConfigError(f"{path}: sha256 is {found}, the configuration wants {sha256}; get the right file")
    return found


def _number(name: str) -> tuple[int, str]:
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    return (numbers[-1] if numbers else 0, name)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return layer


def _where(weights: Weights) -> dict[str, Any]:
    return {"local_files_only": True} if Path(weights.model).is_dir() else {"revision": weights.revision}


def _load(cls: Any, weights: Weights) -> tuple[Any, str]:
    """The model, frozen, and its version: the start of its weights' sha256, or the hub's commit."""
    folder = Path(weights.model)
    version = weights.revision or "unpinned"
    if folder.is_dir():
        version = check_file(folder / "model.safetensors", weights.sha256)[:12]
    elif weights.sha256 is not None:
        raise ConfigError(f"{weights.model}: sha256 is checked for a local folder only, and there is none of that name")
    try:
        model = cls.from_pretrained(
            weights.model, torch_dtype=getattr(torch, weights.dtype), use_safetensors=True, **_where(weights)
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{weights.model}: the model cannot be loaded: {error}") from None
    commit = getattr(model.config, "_commit_hash", None)
    return model.eval().requires_grad_(False).to(weights.device), commit[:12] if commit else version


def _image_processor(weights: Weights) -> Any:
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(weights.model, backend="pil", **_where(weights))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{weights.model}: its image processor cannot be loaded: {error}") from None


def _pixel_values(processor: Any, images: Sequence[Pixels], weights: Weights) -> Tensor:
    """[B, 3, h, w] as the model wants it."""
    values = processor(images=[Image.fromarray(image) for image in images], return_tensors="np")
    tensor = torch.from_numpy(np.stack(values["pixel_values"]))
    return tensor.to(weights.device, getattr(torch, weights.dtype))


def _pooled(output: Any) -> Tensor:
    """The embedding [B, D] of what a model returns."""
    if isinstance(output, Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    found: Tensor = output.last_hidden_state[:, 0] if pooled is None else pooled
    return found
