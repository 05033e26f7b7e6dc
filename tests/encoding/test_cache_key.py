"""The key of encoded samples changes with all that changes the values, and with nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamline.config import ConfigError
from dreamline.encoding import settings as module
from dreamline.encoding.settings import EncodeSettings, cache_key, check_key
from dreamline.media.config import BucketConfig
from dreamline.model import prompts
from dreamline.model.frozen import materialise

ENCODERS = Path(__file__).parents[2] / "assets" / "encoders"
SETTINGS = EncodeSettings()


@pytest.fixture(scope="module")
def key() -> dict[str, object]:
    return cache_key(ENCODERS, SETTINGS)


def changed(key: dict[str, object], other: dict[str, object]) -> set[str]:
    assert key.keys() == other.keys()
    return {name for name in key if key[name] != other[name]}


def test_a_copy_of_the_encoders_has_the_same_key(key: dict[str, object], tmp_path: Path) -> None:
    materialise(ENCODERS, tmp_path / "frozen")
    (tmp_path / "frozen" / "scheduler" / "scheduler_config.json").write_text("{}")  # says nothing about features
    assert cache_key(tmp_path / "frozen", EncodeSettings()) == key


@pytest.mark.parametrize("part", ["vae", "text_encoder"])
def test_weights(key: dict[str, object], tmp_path: Path, part: str) -> None:
    shutil.copytree(ENCODERS, tmp_path / "frozen")
    (path,) = (tmp_path / "frozen" / part).glob("*.safetensors")
    weights = load_file(path)
    name = sorted(weights)[3]
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, path)
    assert changed(key, cache_key(tmp_path / "frozen", SETTINGS)) == {part}


@pytest.mark.parametrize(
    ("part", "file", "old", "new"),
    [
        ("processor", "preprocessor_config.json", '"longest_edge"', '"longest_edge_"'),
        ("tokenizer", "tokenizer.json", "truncation", "truncated"),
        ("vae", "config.json", '"latent_magnitude": 3', '"latent_magnitude": 4'),
    ],
)
def test_files_beside_the_weights(
    key: dict[str, object], tmp_path: Path, part: str, file: str, old: str, new: str
) -> None:
    shutil.copytree(ENCODERS, tmp_path / "frozen")
    path = tmp_path / "frozen" / part / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert changed(key, cache_key(tmp_path / "frozen", SETTINGS)) == {part}


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("GENERATE_TEMPLATE", "{}", "templates"),
        ("EDIT_DROP", 65, "templates"),
        ("MAX_TOKENS", 100, "templates"),
        ("edit_prompt", lambda instruction: instruction, "templates"),
        ("IMAGE_SIDE", 256, "image_side"),
        ("STATES", "pre-norm", "states"),
    ],
)
def test_prompts(key: dict[str, object], monkeypatch: pytest.MonkeyPatch, name: str, value: object, part: str) -> None:
    monkeypatch.setattr(prompts, name, value)
    assert changed(key, cache_key(ENCODERS, SETTINGS)) == {part}


def test_the_recipe(key: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECIPE", module.RECIPE + 1)
    assert changed(key, cache_key(ENCODERS, SETTINGS)) == {"recipe"}


@pytest.mark.parametrize("name", ["transformers", "diffusers"])
def test_versions(key: dict[str, object], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real: Callable[[str], str] = module.version
    monkeypatch.setattr(module, "version", lambda package: "4.57.3" if package == name else real(package))
    assert changed(key, cache_key(ENCODERS, SETTINGS)) == {name}


@pytest.mark.parametrize(
    "values",
    [
        {"latent_dtype": "bfloat16"},
        {"text_dtype": "float16"},
        {"fit": BucketConfig()},
        {"batch_size": 7},  # sums of another shape round otherwise: see test_the_batch_size_changes_last_bits
    ],
)
def test_settings(key: dict[str, object], values: dict[str, object]) -> None:
    other = EncodeSettings.model_validate(values)
    assert changed(key, cache_key(ENCODERS, other)) == {"settings"}
    with pytest.raises(ConfigError, match=r"features: was encoded with other settings \("):
        check_key(key, cache_key(ENCODERS, other), "features")


def test_features_that_do_not_say_by_what(key: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="features: does not say by what"):
        check_key({}, key, "features")


def test_keys_survive_json(key: dict[str, object]) -> None:
    check_key(json.loads(json.dumps(key)), cache_key(ENCODERS, SETTINGS), "features")


def test_the_batch_size_changes_last_bits() -> None:
    """Why it is in the key: not on every machine, but sums of another shape may be taken in another order."""
    from dreamline.encoding.encoders import Encoders

    encoders = Encoders.load(ENCODERS)
    texts = [f"a red circle and {number} blue squares" for number in range(6)]
    together = encoders.text.encode_generate(texts)
    for alone, states in zip([encoders.text.encode_generate([text])[0] for text in texts], together, strict=True):
        torch.testing.assert_close(alone, states, rtol=1e-4, atol=1e-5)


def test_missing_encoders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no vae/ there"):
        cache_key(tmp_path, SETTINGS)
