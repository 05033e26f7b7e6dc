"""Presets of lists: each reads a small file of the public set's schema."""

from __future__ import annotations

import pytest

from data_prep.sources.presets import presets

WEB = "https://example.org"


def lists(make):
    """Preset: file name, rows, and what the first record must be. Lists of URLs."""
    return {
        "laion": (
            "part-0.parquet",
            [
                {
                    "SAMPLE_ID": 1,
                    "URL": f"{WEB}/a.jpg",
                    "TEXT": "a cat",
                    "HEIGHT": 600,
                    "WIDTH": 800,
                    "LICENSE": "?",
                    "NSFW": "UNLIKELY",
                    "similarity": 0.31,
                    "hash": 123456789,
                    "punsafe": 0.01,
                    "pwatermark": 0.2,
                    "AESTHETIC_SCORE": 5.5,
                }
            ],
            {
                "text": "a cat",
                "scores": {"similarity": 0.31, "punsafe": 0.01, "pwatermark": 0.2, "aesthetic_score": 5.5},
                "licence": "?",
                "extra": {"NSFW": "UNLIKELY", "hash": "123456789", "WIDTH": "800", "HEIGHT": "600", "SAMPLE_ID": "1"},
            },
        ),
        "laion-coco": (
            "part-0.parquet",
            [
                {
                    "URL": f"{WEB}/a.jpg",
                    "TEXT": "cat.jpg",
                    "top_caption": "a cat on a mat",
                    "all_captions": ["a cat", "a dog"],
                    "all_similarities": [0.3, 0.2],
                    "hash": 7,
                }
            ],
            {"text": "a cat on a mat", "scores": {"similarity": 0.3}},
        ),
        "datacomp": (
            "x.parquet",
            [
                {
                    "uid": "ab",
                    "url": f"{WEB}/a.jpg",
                    "text": "a cat",
                    "original_width": 8,
                    "original_height": 6,
                    "clip_b32_similarity_score": 0.2,
                    "clip_l14_similarity_score": 0.25,
                    "face_bboxes": [[0.1]],
                    "sha256": "00",
                }
            ],
            {
                "text": "a cat",
                "scores": {"clip_b32_similarity_score": 0.2, "clip_l14_similarity_score": 0.25},
                "extra": {"uid": "ab", "sha256": "00", "original_width": "8", "original_height": "6"},
            },
        ),
        "recap-datacomp": (
            "x.parquet",
            [
                {
                    "url": f"{WEB}/a.jpg",
                    "re_caption": "a grey cat",
                    "org_caption": "cat",
                    "sha256": "00",
                    "key": "1",
                    "re_clip_score": 0.3,
                    "org_clip_score": 0.2,
                    "re_length": 3,
                    "org_length": 1,
                    "re_gpt4v_score": 5,
                    "org_gpt4v_score": 2,
                }
            ],
            {
                "text": "a grey cat",
                "scores": {"re_clip_score": 0.3, "org_clip_score": 0.2},
                "extra": {"org_caption": "cat", "sha256": "00"},
            },
        ),
        "coyo": (
            "x.parquet",
            [
                {
                    "id": 1,
                    "url": f"{WEB}/a.jpg",
                    "text": "a cat",
                    "width": 8,
                    "height": 6,
                    "image_phash": "c9",
                    "text_length": 5,
                    "word_count": 2,
                    "num_tokens_bert": 2,
                    "num_tokens_gpt": 2,
                    "num_faces": 0,
                    "clip_similarity_vitb32": 0.4,
                    "clip_similarity_vitl14": 0.3,
                    "nsfw_score_opennsfw2": 0.0,
                    "nsfw_score_gantman": 0.1,
                    "watermark_score": 0.2,
                    "aesthetic_score_laion_v2": 5.0,
                }
            ],
            {
                "text": "a cat",
                "scores": {
                    "clip_similarity_vitb32": 0.4,
                    "clip_similarity_vitl14": 0.3,
                    "nsfw_opennsfw2": 0.0,
                    "nsfw_gantman": 0.1,
                    "watermark": 0.2,
                    "aesthetic": 5.0,
                    "num_faces": 0.0,
                },
            },
        ),
        "cc12m": ("cc12m.tsv", f'{WEB}/a.jpg\ta "cat" on <PERSON>\n', {"text": 'a "cat" on <PERSON>'}),
        "cc3m": ("Train_GCC-training.tsv", f"a cat\t{WEB}/a.jpg\n", {"text": "a cat"}),
        "cc12m-llavanext": (
            "train.jsonl.gz",
            [
                {
                    "url": f"{WEB}/a.jpg",
                    "caption_llava": "a long text",
                    "caption_llava_short": "a text",
                    "key": "000",
                    "status": "success",
                },
                {
                    "url": f"{WEB}/b.jpg",
                    "caption_llava": "x",
                    "caption_llava_short": "y",
                    "key": "1",
                    "status": "failed",
                },
            ],
            {"text": "a long text", "problems": ["not_selected"]},
        ),
        "pd12m": (
            "pd12m.000.parquet",
            [
                {
                    "id": "1",
                    "url": f"{WEB}/a.jpg",
                    "caption": "a cat",
                    "width": 8,
                    "height": 6,
                    "mime_type": "image/jpeg",
                    "hash": "00",
                    "source": "museum",
                    "license": "https://creativecommons.org/publicdomain/zero/1.0/",
                }
            ],
            {"text": "a cat", "licence": "https://creativecommons.org/publicdomain/zero/1.0/"},
        ),
        "pico-banana": (
            "sft.jsonl",
            [
                {
                    "open_image_input_url": f"{WEB}/in.jpg",
                    "text": "make it red",
                    "edit_type": "Change colour",
                    "output_image": "images/positive-edit/1.png",
                    "summarized_text": "red",
                }
            ],
            {
                "text": "make it red",
                "label": "Change colour",
                "url": "https://ml-site.cdn-apple.com/datasets/pico-banana-300k/nb/images/positive-edit/1.png",
                "source_url": f"{WEB}/in.jpg",
                "licence": "CC-BY-NC-ND-4.0",
            },
        ),
    }


def beside(make):
    """The same for lists with relative paths; pictures 1 (target) and 2 (source) lie at p/1.jpg and p/2.jpg."""
    return {
        "journeydb": (
            "train_anno_realease_repath.jsonl",
            [{"img_path": "./p/1.jpg", "prompt": "cat --ar 1:1", "Task2": {"Caption": "a cat"}, "Task1": {}}],
            {"text": "a cat", "extra": {"prompt": "cat --ar 1:1"}},
        ),
        "journeydb-prompt": (
            "x.jsonl",
            [{"img_path": "./p/1.jpg", "prompt": "cat --ar 1:1"}],
            {"text": "cat --ar 1:1"},
        ),
        "sharegpt-4o-image": (
            "text_to_image.json",
            '[{"input_prompt": "a cat", "output_image": "p/1.jpg"}]',
            {"text": "a cat"},
        ),
        "sharegpt-4o-image-edit": (
            "text_and_image_to_image.json",
            '[\n {"input_prompt": "red", "input_image": ["p/2.jpg"], "output_image": "p/1.jpg"},\n'
            ' {"input_prompt": "both", "input_image": ["p/2.jpg", "p/1.jpg"], "output_image": "p/1.jpg"}\n]\n',
            {"text": "red", "problems": ["several_pictures"]},
        ),
        "imgedit": (
            "action.parquet",
            [{"input_images": ["p/2.jpg"], "output_images": ["p/1.jpg"], "prompt": "red"}],
            {"text": "red"},
        ),
        "seed-data-edit": (
            "annotations.jsonl",
            [{"source_image": "p/2.jpg", "target_image": "p/1.jpg", "instruction": "red"}],
            {"text": "red", "licence": "CC-BY-NC-4.0"},
        ),
        "gpt-image-edit": (
            "hqedit_edit.json",
            '[{"image": ["p/2.jpg", "p/1.jpg"], "conversations": '
            '[{"from": "human", "value": "<image>\\nmake it red"}, {"from": "gpt", "value": "<image>"}]}]',
            {"text": "make it red", "licence": "CC-BY-4.0"},
        ),
        "nhr-edit": (
            "metadata.jsonl",
            [{"source_image": "p/2.jpg", "edit_instruction": "red", "edited_image": "p/1.jpg", "category": "colour"}],
            {"text": "red", "label": "colour", "licence": "Apache-2.0"},
        ),
    }


@pytest.mark.parametrize("preset", sorted(lists(None)))
def test_list_of_urls(make, tmp_path, preset):
    name, rows, wanted = lists(make)[preset]
    make.write(tmp_path / name, rows)
    found = make.read_all(kind="url_list", path=str(tmp_path), preset=preset)
    record = make.check(found, wanted, preset)
    assert record.image.url == wanted.get("url", f"{WEB}/a.jpg")
    assert record.image.content is None
    assert (record.source.url if record.source else None) == wanted.get("source_url")
    assert record.provenance.url == record.image.url


@pytest.mark.parametrize("preset", sorted(beside(None)))
def test_list_with_pictures_beside_it(make, tmp_path, preset):
    name, rows, wanted = beside(make)[preset]
    make.write(tmp_path / name, rows)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "1.jpg").write_bytes(make.picture(1))
    (tmp_path / "p" / "2.jpg").write_bytes(make.picture(2))
    record = make.check(make.read_all(kind="url_list", path=str(tmp_path / name), preset=preset), wanted, preset)
    assert record.image.content == make.picture(1)
    assert (record.source.content if record.source else None) == (make.picture(2) if record.kind == "edit" else None)


def test_every_preset_of_lists_has_a_test(make):
    assert {*lists(make), *beside(make)} == {name for name, preset in presets().items() if "url_list" in preset.kinds}
