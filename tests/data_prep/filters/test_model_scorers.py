"""Scorers load real models (small, random, saved to a folder) and give what the models say."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file

from data_prep.filters.columns import columns, judge_scores
from data_prep.filters.config import EmbeddingDuplicates, FiltersConfig, ScorerRule, Threshold
from data_prep.filters.duplicates import embedding_duplicates
from data_prep.filters.scorers import open_embedder, open_scorer, scored
from dreamline.config import ConfigError

WIDTH, WORDS = 24, ["[PAD]", "[BOS]", "[EOS]", "[UNK]", "red", "blue", "fox", "hen", "snow"]


def _scorer(**values):
    return open_scorer(TypeAdapter(ScorerRule).validate_python(values))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 1), ("[EOS]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", bos_token="[BOS]", eos_token="[EOS]", unk_token="[UNK]",
        model_max_length=12,
    ).save_pretrained(folder)  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = CLIPConfig(
        text_config={**small, "vocab_size": len(WORDS), "max_position_embeddings": 12, **special},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=WIDTH,
    )
    CLIPModel(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def siglip(tmp_path_factory) -> Path:
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(1)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**small, "vocab_size": len(WORDS), "max_position_embeddings": 12},
        vision_config={**small, "image_size": 32, "patch_size": 8},
    )
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(2)
    config = ViTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        id2label={0: "normal", 1: "nsfw", 2: "drawing"}, label2id={"normal": 0, "nsfw": 1, "drawing": 2},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    """The layer names of LAION's improved aesthetic predictor, dropouts left out, at small widths."""
    torch.manual_seed(3)
    widths = [(0, 16, WIDTH), (2, 8, 16), (4, 8, 8), (6, 4, 8), (10, 1, 4)]  # 10 comes after 6, not after 1
    state = {f"layers.{number}.weight": torch.randn(rows, cols) for number, rows, cols in widths}
    state |= {f"layers.{number}.bias": torch.randn(rows) for number, rows, _ in widths}
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    save_file(state, path)
    torch.save(state, path.with_suffix(".pth"))
    return path


@pytest.fixture
def batch(candidate, nature):
    texts = ["red fox", "blue hen snow", None, "red fox snow fox snow fox snow fox snow fox snow fox snow fox"]
    return [candidate(nature(seed, 40, 56), text, row=f"r{seed}", key=f"k{seed}") for seed, text in enumerate(texts)]


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_similarity_is_the_cosine_of_the_models_own_embeddings(family, request, batch):
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    folder = request.getfixturevalue(family)
    scorer = _scorer(kind="similarity", model=str(folder), name="clip")
    values = scorer.score(batch)["clip"]
    assert np.isnan(values[2])
    model = AutoModel.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for index in (0, 1, 3):
        pixels = torch.from_numpy(np.stack(processor(images=[batch[index].image], return_tensors="np")["pixel_values"]))
        tokens = tokenizer(
            batch[index].record.text, padding="max_length", truncation=True, max_length=12, return_tensors="pt"
        )
        mask = {"attention_mask": tokens["attention_mask"]}
        with torch.inference_mode():
            output = model(input_ids=tokens["input_ids"], pixel_values=pixels, **mask)
        assert values[index] == pytest.approx((output.image_embeds * output.text_embeds).sum().item(), abs=1e-5)


def test_classifier_sums_the_probabilities_of_labels(classifier, batch):
    one = [_scorer(kind="classifier", name="x", model=str(classifier), labels=[label]).score(batch)["x"]
           for label in ("normal", "NSFW", "drawing")]  # fmt: skip
    assert np.allclose(np.sum(one, axis=0), 1, atol=1e-5)
    two = _scorer(kind="classifier", name="unsafe", model=str(classifier), labels=["nsfw", "drawing"])
    assert np.allclose(two.score(batch)["unsafe"], np.add(one[1], one[2]), atol=1e-6)
    assert two.version == _digest(classifier / "model.safetensors")[:12]
    with pytest.raises(ConfigError, match=r"no label 'watermark'.*nsfw"):
        _scorer(kind="classifier", name="x", model=str(classifier), labels=["watermark"])


def test_aesthetic_head_is_a_stack_of_linear_layers(clip, head, batch):
    from safetensors.torch import load_file

    values = _scorer(kind="aesthetic", model=str(clip), head=str(head)).score(batch)["aesthetic"]
    embedder = open_embedder(EmbeddingDuplicates(kind="embedding_duplicates", model=str(clip)))
    hidden = torch.from_numpy(embedder.embed(batch).astype(np.float32))
    state = load_file(head)
    for number in (0, 2, 4, 6, 10):
        hidden = hidden @ state[f"layers.{number}.weight"].T + state[f"layers.{number}.bias"]
    assert np.allclose(values, hidden[:, 0].numpy(), rtol=0.05, atol=0.2)  # the embeddings went through float16
    again = _scorer(kind="aesthetic", model=str(clip), head=str(head.with_suffix(".pth"))).score(batch)["aesthetic"]
    assert np.allclose(values, again)


def test_weights_are_checked(clip, head, tmp_path):
    right = _digest(clip / "model.safetensors")
    assert _scorer(kind="similarity", model=str(clip), sha256=right).version == right[:12]
    with pytest.raises(ConfigError, match="configuration wants"):
        _scorer(kind="similarity", model=str(clip), sha256="0" * 64)
    with pytest.raises(ConfigError, match="configuration wants"):
        _scorer(kind="aesthetic", model=str(clip), head=str(head), head_sha256="0" * 64)
    with pytest.raises(ConfigError, match="cannot be read"):
        _scorer(kind="aesthetic", model=str(clip), head=str(tmp_path / "none.safetensors"))
    (tmp_path / "head.safetensors").write_bytes(b"junk")
    with pytest.raises(ConfigError, match="linear layers"):
        _scorer(kind="aesthetic", model=str(clip), head=str(tmp_path / "head.safetensors"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        _scorer(kind="similarity", model=str(tmp_path / "empty"))
    save_file({"a.0.weight": torch.zeros(1, 7), "a.0.bias": torch.zeros(1)}, tmp_path / "narrow.safetensors")
    with pytest.raises(ConfigError, match=r"takes 7 numbers, but .* gives 24"):
        _scorer(kind="aesthetic", model=str(clip), head=str(tmp_path / "narrow.safetensors"))


def test_a_pickle_that_runs_code_is_refused(clip, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match="linear layers"):
        _scorer(kind="aesthetic", model=str(clip), head=str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


def test_embedder_feeds_embedding_duplicates(clip, candidate, nature):
    embedder = open_embedder(EmbeddingDuplicates(kind="embedding_duplicates", model=str(clip)))
    made = [candidate(nature(1, 40, 56), row=f"r{index}", key=f"k{index}") for index in range(2)]
    vectors = embedder.embed(made)
    assert vectors.shape == (2, WIDTH)
    assert np.allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=2e-3)
    assert embedding_duplicates(columns(made, vectors), 0.99)["row"].to_pylist() == ["r1"]


def test_scores_become_columns_and_thresholds_need_no_model(clip, batch):
    config = FiltersConfig.model_validate(
        {
            "scorers": [
                {"kind": "pixels", "measures": ["sharpness", "entropy"]},
                {"kind": "similarity", "model": str(clip)},
            ]
        }
    )
    done = scored([open_scorer(rule) for rule in config.scorers], batch)
    assert set(done[0].scores) == {"sharpness", "entropy", "similarity"}
    assert set(done[2].scores) == {"sharpness", "entropy"}  # no text, no similarity
    table = columns(done)
    assert table["score_similarity"].null_count == 1
    middle = sorted(item.scores["sharpness"] for item in done)[2]
    verdicts = judge_scores(table, [Threshold(score="sharpness", min=middle)])
    assert sum(verdict is not None for verdict in verdicts) == 2


def test_scorers_of_one_name_are_refused(clip):
    rule = {"kind": "similarity", "model": str(clip)}
    with pytest.raises(ValueError, match="same name: similarity"):
        FiltersConfig.model_validate({"scorers": [rule, rule]})
