"""Filters as they are written in YAML."""

from __future__ import annotations

import subprocess
import sys

import pytest

from data_prep.filters.config import FiltersConfig
from data_prep.filters.rows import open_row_filters
from data_prep.filters.scorers import open_scorer
from dreamline.config import ConfigError, dump, load

EVERYTHING = """
rows:
  - {kind: resolution, min_side: 512}
  - {kind: aspect, max_ratio: 2}
  - {kind: caption, min_words: 3, scripts: [latin], reject: [url, html, filename, email], banned: [stock]}
  - {kind: blur, min_sharpness: 60}
  - {kind: exposure, max_clipped: 0.8}
  - {kind: flat}
  - {kind: text, max_share: 0.08}
  - {kind: licence, allow: [CC0*]}
scorers:
  - {kind: pixels, measures: [sharpness]}
  - {kind: classifier, name: nsfw, model: models/nsfw, labels: [nsfw]}
  - {kind: classifier, name: watermark, model: models/watermark, labels: [watermark]}
  - {kind: aesthetic, model: models/clip, head: models/head.safetensors}
  - {kind: similarity, model: models/siglip}
  - {kind: rubric, endpoint: {base_url: "http://vlm:8000/v1", model: vl, api_key_env: VLM_KEY}}
thresholds:
  - {score: nsfw, max: 0.2}
  - {score: aesthetic, min: 4.5, on_missing: keep}
sets:
  - {kind: exact_duplicates}
  - {kind: perceptual_duplicates, max_distance: 4}
  - {kind: embedding_duplicates, model: models/clip, min_cosine: 0.97}
  - {kind: caption_duplicates, min_jaccard: 0.9}
  - {kind: decontamination, against: [{name: gedit, images: eval/gedit, prompts: eval/gedit.jsonl}]}
"""


def test_every_kind_is_read_and_written_again(tmp_path):
    (tmp_path / "filters.yaml").write_text(EVERYTHING)
    config = load(FiltersConfig, tmp_path / "filters.yaml")
    kinds = ["resolution", "aspect", "caption", "blur", "exposure", "flat", "text", "licence"]
    assert [rule.name for rule in open_row_filters(config.rows)] == kinds
    assert len(config.scorers) == 6
    assert len(config.sets) == 5
    dump(config, tmp_path / "again.yaml")
    assert load(FiltersConfig, tmp_path / "again.yaml") == config
    assert open_scorer(config.scorers[0]).name == "pixels"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("rows: [{kind: resolution, min_sides: 3}]", "min_sides"),
        ("rows: [{min_side: 3}]", "discriminator 'kind'"),
        ("rows: [{kind: caption, scripts: [elvish]}]", "scripts"),
        ("thresholds: [{score: nsfw}]", "needs min, max or both"),
        ("sets: [{kind: decontamination, against: [{name: a}]}]", "needs images, hashes or prompts"),
        ("sets: [{kind: perceptual_duplicates, max_distance: 40}]", "max_distance"),
        ("sets: [{kind: embedding_duplicates, model: a}, {kind: embedding_duplicates, model: b}]", "at most one"),
        ("scorers: [{kind: classifier, name: nsfw, model: a, labels: []}]", "labels"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, match):
    (tmp_path / "filters.yaml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        load(FiltersConfig, tmp_path / "filters.yaml")


def test_the_configuration_loads_nothing_heavy():
    heavy = "('torch', 'transformers', 'cv2', 'pyarrow', 'numpy', 'PIL')"
    code = f"import sys, data_prep.filters.config; assert not [m for m in {heavy} if m in sys.modules]"
    subprocess.run([sys.executable, "-c", code], check=True)
