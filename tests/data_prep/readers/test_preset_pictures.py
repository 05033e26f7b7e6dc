"""Presets of files that hold the pictures: each reads a small file of the public set's schema."""

from __future__ import annotations

import base64

import pytest

from data_prep.sources.presets import presets

WEB = "https://example.org"


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
            {
                "text": "red",
                "mask": mask["bytes"],
                "holes": True,
                "licence": "CC-BY-4.0",
                "extra": {"img_id": "7", "turn_index": "1"},
            },
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


@pytest.mark.parametrize(
    "preset", ["anyedit", "dalle3", "hq-edit", "instructpix2pix", "magicbrush", "nhr-edit", "omniedit", "ultraedit"]
)
def test_parquet_with_pictures(make, tmp_path, preset):
    row, wanted = embedded(make)[preset]
    make.write(tmp_path / "train-00000-of-00001.parquet", [row])
    record = make.check(make.read_all(kind="parquet", path=str(tmp_path), preset=preset), wanted, preset)
    assert record.image.content == make.picture(1)
    assert (record.source.content if record.source else None) == (make.picture(2) if record.kind == "edit" else None)
    assert (record.mask.content if record.mask else None) == wanted.get("mask")
    assert record.holes == wanted.get("holes", False)


@pytest.mark.parametrize("preset", ["blip3o", "text-to-image-2m"])
def test_archive(make, tmp_path, preset):
    members, wanted = archives(make)[preset]
    (tmp_path / "data_000000.tar").write_bytes(make.tar(members))
    record = make.check(make.read_all(kind="webdataset", path=str(tmp_path), preset=preset), wanted, preset)
    assert record.image.content == make.picture(1)


def test_the_pictures_of_dalle3_may_be_base64(make, tmp_path):
    row = {"image": base64.b64encode(make.picture(1, size=(64, 64))).decode(), "caption": "a cat"}
    make.write(tmp_path / "a.parquet", [row])
    (record,) = make.read_all(kind="parquet", path=str(tmp_path), preset="dalle3")
    assert record.image.content == make.picture(1, size=(64, 64))


def test_every_preset_of_pictures_has_a_test(make):
    others = {name for name, preset in presets().items() if "url_list" not in preset.kinds}
    assert {*embedded(make), *archives(make)} == {*others, "nhr-edit"}  # which comes in either form
