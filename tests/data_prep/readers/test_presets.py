"""Each preset reads a small file of the public set's schema."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

import pytest

from data_prep.record import Problem
from data_prep.sources.presets import presets
from data_prep.sources.reader import open_source
from dreamline.config import ConfigError

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
            [{"url": f"{WEB}/a.jpg", "re_caption": "a grey cat", "org_caption": "cat", "sha256": "00"}],
            {"text": "a grey cat", "extra": {"org_caption": "cat", "sha256": "00"}},
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


def embedded(make):
    """The same for parquet files with the pictures in them, as Hugging Face writes them."""
    image, source = ({"bytes": make.picture(number), "path": None} for number in (1, 2))
    mask = {"bytes": make.picture(3, "PNG"), "path": "mask.png"}
    return {
        "instructpix2pix": (
            {
                "original_prompt": "a cat",
                "original_image": source,
                "edit_prompt": "red",
                "edited_prompt": "a red cat",
                "edited_image": image,
            },
            {"text": "red", "extra": {"original_prompt": "a cat", "edited_prompt": "a red cat"}},
        ),
        "magicbrush": (
            {
                "img_id": "7",
                "turn_index": 1,
                "source_img": source,
                "mask_img": mask,
                "instruction": "red",
                "target_img": image,
            },
            {"text": "red", "mask": None, "licence": "CC-BY-4.0", "extra": {"img_id": "7", "turn_index": "1"}},
        ),
        "ultraedit": (
            {
                "source_image": source,
                "edited_image": image,
                "mask_image": mask,
                "edit_prompt": "red",
                "source_caption": "a cat",
                "target_caption": "a red cat",
                "clip_sim_source": 0.2,
            },
            {"text": "red", "mask": mask["bytes"], "licence": "CC-BY-4.0"},
        ),
        "omniedit": (
            {
                "omni_edit_id": "x",
                "task": "removal",
                "src_img": source,
                "edited_img": image,
                "edited_prompt_list": ["remove it", "please remove it"],
                "width": 8,
                "height": 6,
                "sc_score_1": 9,
                "sc_score_2": 8,
                "sc_reasoning": "",
                "pq_score": 7,
                "pq_reasoning": "",
                "o_score": 8.1,
            },
            {
                "text": "remove it",
                "label": "removal",
                "scores": {"sc_score_1": 9.0, "sc_score_2": 8.0, "pq_score": 7.0, "o_score": 8.1},
                "licence": "MIT",
            },
        ),
        "anyedit": (
            {
                "image_id": "1",
                "edit_instruction": "red",
                "edit_type": "color_alter",
                "visual_input": "None",
                "image_file": source,
                "edited_file": image,
                "input": "a cat",
                "output": "a red cat",
            },
            {"text": "red", "label": "color_alter", "licence": "CC-BY-4.0"},
        ),
        "hq-edit": (
            {
                "input_image": source,
                "output_image": image,
                "edit": "red",
                "inverse_edit": "grey",
                "input": "a cat",
                "output": "a red cat",
            },
            {"text": "red", "extra": {"inverse_edit": "grey", "input": "a cat", "output": "a red cat"}},
        ),
        "nhr-edit": (
            {"source_image": source, "edit_instruction": "red", "edited_image": image},
            {"text": "red", "licence": "Apache-2.0"},
        ),
        "dalle3": (
            {"image": image, "caption": "a cat", "link": WEB, "message_id": "5", "timestamp": "now"},
            {"text": "a cat", "extra": {"link": WEB, "message_id": "5"}},
        ),
    }


def archives(make):
    """The same for WebDataset archives."""
    return {
        "text-to-image-2m": (
            [("data_512_2M_0.jpg", make.picture(1)), ("data_512_2M_0.json", b'{"prompt": "a cat"}')],
            {"text": "a cat", "licence": "MIT"},
        ),
        "blip3o": ([("000.jpg", make.picture(1)), ("000.txt", b"a long text\n")], {"text": "a long text"}),
    }


def check(rows, wanted, preset):
    record, *rest = rows
    assert not isinstance(record, Problem), record
    assert record.kind == presets()[preset].task
    assert record.text == wanted["text"]
    assert record.label == wanted.get("label")
    assert record.provenance.licence == wanted.get("licence", presets()[preset].licence)
    assert dict(record.scores) == pytest.approx(wanted.get("scores", {}))
    if "extra" in wanted:
        assert dict(record.extra) == wanted["extra"]
    assert [row.reason for row in rest] == wanted.get("problems", [])
    return record


@pytest.mark.parametrize("preset", sorted(lists(None)))
def test_list_of_urls(make, tmp_path, preset):
    name, rows, wanted = lists(make)[preset]
    write(make, tmp_path / name, rows)
    found = make.read_all(kind="url_list", path=str(tmp_path), preset=preset)
    record = check(found, wanted, preset)
    assert record.image.url == wanted.get("url", f"{WEB}/a.jpg")
    assert record.image.content is None
    assert (record.source.url if record.source else None) == wanted.get("source_url")
    assert record.provenance.url == record.image.url


@pytest.mark.parametrize("preset", sorted(beside(None)))
def test_list_with_pictures_beside_it(make, tmp_path, preset):
    name, rows, wanted = beside(make)[preset]
    write(make, tmp_path / name, rows)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "1.jpg").write_bytes(make.picture(1))
    (tmp_path / "p" / "2.jpg").write_bytes(make.picture(2))
    record = check(make.read_all(kind="url_list", path=str(tmp_path / name), preset=preset), wanted, preset)
    assert record.image.content == make.picture(1)
    assert (record.source.content if record.source else None) == (make.picture(2) if record.kind == "edit" else None)


@pytest.mark.parametrize(
    "preset", ["anyedit", "dalle3", "hq-edit", "instructpix2pix", "magicbrush", "nhr-edit", "omniedit", "ultraedit"]
)
def test_parquet_with_pictures(make, tmp_path, preset):
    row, wanted = embedded(make)[preset]
    write(make, tmp_path / "train-00000-of-00001.parquet", [row])
    record = check(make.read_all(kind="parquet", path=str(tmp_path), preset=preset), wanted, preset)
    assert record.image.content == make.picture(1)
    assert (record.source.content if record.source else None) == (make.picture(2) if record.kind == "edit" else None)
    assert (record.mask.content if record.mask else None) == wanted.get("mask")


@pytest.mark.parametrize("preset", ["blip3o", "text-to-image-2m"])
def test_archive(make, tmp_path, preset):
    members, wanted = archives(make)[preset]
    (tmp_path / "data_000000.tar").write_bytes(make.tar(members))
    record = check(make.read_all(kind="webdataset", path=str(tmp_path), preset=preset), wanted, preset)
    assert record.image.content == make.picture(1)


def test_the_pictures_of_dalle3_may_be_base64(make, tmp_path):
    row = {"image": base64.b64encode(make.picture(1, size=(64, 64))).decode(), "caption": "a cat"}
    write(make, tmp_path / "a.parquet", [row])
    (record,) = make.read_all(kind="parquet", path=str(tmp_path), preset="dalle3")
    assert record.image.content == make.picture(1, size=(64, 64))


def test_every_preset_is_documented():
    text = (Path(__file__).parents[3] / "docs" / "data_sources.md").read_text()
    for name, preset in presets().items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        assert [cell.strip() for cell in line.split("|")[2:-1]] == [
            *(", ".join(preset.kinds), preset.task, preset.licence or "", preset.terms or ""),
        ], f"docs/data_sources.md: {name} is not what presets.yaml says"


def test_every_preset_has_a_test(make):
    assert set(presets()) == {*lists(make), *beside(make), *embedded(make), *archives(make)}


@pytest.mark.parametrize("preset", sorted(name for name, preset in presets().items() if not preset.header))
def test_a_preset_refuses_a_file_of_another_schema(make, tmp_path, preset):
    kind = presets()[preset].kinds[0]
    if kind == "webdataset":
        (tmp_path / "a.tar").write_bytes(make.tar([("k.foo.txt", b"x")]))
    else:
        write(make, tmp_path / "a.parquet", [{"foo": "x"}])
    with pytest.raises(
        ConfigError, match=r"a\.(tar|parquet).*no column .*there are: .*foo.*name the right one as"
    ) as error:
        open_source(make.config(kind=kind, path=str(tmp_path), preset=preset)).spans()
    assert "columns." in str(error.value) or "where." in str(error.value)


def test_a_preset_must_be_known_and_of_the_kind(make, tmp_path):
    with pytest.raises(ConfigError, match=r"no 'lion'; there are: .*laion"):
        open_source(make.config(kind="url_list", path=str(tmp_path), preset="lion"))
    with pytest.raises(ConfigError, match="magicbrush is for kind: parquet, not for kind: folder"):
        open_source(make.config(kind="folder", path=str(tmp_path), preset="magicbrush"))


def write(make, path: Path, rows):
    if isinstance(rows, str):
        content = rows.encode()
    else:
        content = make.parquet(rows) if path.suffix == ".parquet" else make.jsonl(rows)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
