"""Published folders: the stock pipelines load and run them, and our batched sampler makes the same pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamline.config import ConfigError
from dreamline.diffusion.randomness import normals
from dreamline.model import prompts
from dreamline.model.config import DREAMLITE, UNetConfig
from dreamline.model.folder import load_pipeline, publish_pipeline
from dreamline.model.frozen import frozen_digest, materialise
from dreamline.model.generator import Generator, Sampling, is_student
from dreamline.model.text import TextEncoder, load_processor, pad
from dreamline.model.unet import build_for, load_unet
from dreamline.model.vae import decode, load_vae

ASSETS = Path(__file__).parents[2] / "assets" / "encoders"
SIDE = 32


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen") / "frozen"
    materialise(ASSETS, folder)
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["base", "mobile"])
def published(request, frozen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "checkpoint"
    publish_pipeline(build_for(UNetConfig(), frozen, (SIDE, SIDE), 0), frozen, folder, mobile=request.param)
    return folder


@pytest.fixture(scope="module")
def source():
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[4:12, 4:12] = (200, 30, 30)
    return Image.fromarray(pixels)


def test_templates_are_those_of_the_stock_pipeline(frozen):
    from diffusers import DreamLitePipeline

    pipe = DreamLitePipeline.__new__(DreamLitePipeline)
    pipe.register_modules = lambda **parts: None
    pipe.vae = None
    DreamLitePipeline.__init__(pipe, None, None, None, None, None, None)
    assert pipe.prompt_template_encode_generate == prompts.GENERATE_TEMPLATE
    assert pipe.prompt_template_encode_edit == prompts.EDIT_TEMPLATE
    assert pipe.prompt_template_encode_generate_start_idx == prompts.GENERATE_DROP
    assert pipe.prompt_template_encode_edit_start_idx == prompts.EDIT_DROP


def test_frozen_parts_are_linked_not_copied(published, frozen):
    name = "vae/diffusion_pytorch_model.safetensors"
    assert os.stat(published / name).st_ino == os.stat(frozen / name).st_ino


def test_everything_is_float32_and_of_the_trained_resolution(published):
    pipe = load_pipeline(published)
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.float32}
    assert pipe.unet.config.sample_size == SIDE // 8


@pytest.mark.parametrize("image_scale", [1.3, 1.0])
@pytest.mark.parametrize("task", ["generate", "edit"])
def test_stock_pipeline_runs_and_ours_agrees(published, source, task, image_scale):
    """The stock pipeline at batch 1, from the noise that our sampler draws for seed 5."""
    pipe = load_pipeline(published)
    pipe.set_progress_bar_config(disable=True)
    generator = Generator.load(published)
    image = source if task == "edit" else None
    sampling = Sampling(4, 1.0, 1.0) if is_student(published) else Sampling(4, 2.0, image_scale)
    noise = normals((generator.latent_channels, SIDE // 8, SIDE // 8), 0, [5], "initial noise")
    pipe.prepare_latents = lambda *_, **__: noise.clone()
    scales = {} if is_student(published) else {"guidance_scale": 2.0, "image_guidance_scale": image_scale}
    stock = pipe(prompt="a red circle", image=image, height=SIDE, width=SIDE, num_inference_steps=4, **scales).images[0]
    ours = generator.pictures(["a blue square", "a red circle"], [4, 5], sampling, [source] * 2 if image else None)[1]
    assert stock.size == (SIDE, SIDE)
    assert np.abs(np.asarray(stock).astype(int) - ours.astype(int)).max() <= 1


@pytest.mark.parametrize("task", ["generate", "edit"])
def test_text_states_equal_the_stock_pipeline(published, source, task):
    pipe, ours = load_pipeline(published), TextEncoder.from_folder(published)
    texts = ["", "a red circle to the left of a blue square"]
    wrap = prompts.generate_prompt if task == "generate" else prompts.edit_prompt
    stock, mask = pipe.encode_prompt(task, ["", wrap(texts[1])], torch.device("cpu"), torch.float32, image=source)
    if task == "generate":
        states = [ours.null_generate(), ours.encode_generate(texts[1:])[0]]
    else:
        looks = ours.look([source])
        states = [ours.null_edit(looks)[0], ours.encode_edit(texts[1:], looks)[0]]
    padded, own_mask = pad(states)
    assert torch.equal(mask, own_mask)
    torch.testing.assert_close(padded, stock, rtol=1e-4, atol=1e-5)


def test_picture_states_are_the_same_for_every_instruction(frozen, source):
    text = TextEncoder.from_folder(frozen)
    looks = text.look([source])
    length = text.num_image_tokens(looks)[0]
    first, second = text.encode_edit(["make the circle green", "remove the square"], looks[[0, 0]])
    null = text.null_edit(looks)[0]
    assert length == 4 + 2
    torch.testing.assert_close(first[:length], second[:length], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first[:length], null[:length], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first[length], null[length])
    assert len(text.null_generate()) == 5
    assert len(null) == length + 5


def test_tokens_are_those_of_the_processor(frozen, source):
    text, wanted = TextEncoder.from_folder(frozen), ["make the circle green", ""]
    squares = [picture.convert("RGB").resize((512, 512), Image.Resampling.LANCZOS) for picture in (source, source)]
    filled = [prompts.EDIT_TEMPLATE.format(prompt) for prompt in wanted]
    theirs = text.processor(text=filled, images=squares, padding=True, return_tensors="pt")
    ours = text.tokens(wanted, text.look([source, source]))
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_states_do_not_depend_on_the_batch(frozen):
    text = TextEncoder.from_folder(frozen)
    together = text.encode_generate(["a red circle", "three green triangles on a white background"])
    torch.testing.assert_close(together[0], text.encode_generate(["a red circle"])[0], rtol=1e-4, atol=1e-5)


def test_unet_depends_on_its_seed_alone(frozen):
    first, again, other = (build_for(UNetConfig(), frozen, (SIDE, SIDE), seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_the_released_network_has_the_published_size():
    from diffusers import DreamLiteUNetModel

    with torch.device("meta"):
        unet = DreamLiteUNetModel(**DREAMLITE.diffusers(text_dim=2048, latent_channels=4, sample_size=128))
    assert sum(weight.numel() for weight in unet.parameters()) == 389_968_388


def test_round_trip_of_the_unet(published):
    assert all(
        torch.equal(a, b)
        for a, b in zip(load_unet(published).parameters(), load_pipeline(published).unet.parameters(), strict=True)
    )


def test_a_checkpoint_does_not_tell_where_its_parent_lay(published, frozen, tmp_path):
    publish_pipeline(load_unet(published), frozen, tmp_path / "child", mobile=False)
    assert str(published) not in (tmp_path / "child/unet/config.json").read_text()


def test_heads_that_do_not_share_keys_evenly_are_refused():
    with pytest.raises(ValueError, match="no multiple of num_kv_heads 3"):
        UNetConfig(num_kv_heads=3)


def test_materialise_is_deterministic_and_checks_its_source(frozen, tmp_path, monkeypatch):
    assert materialise(ASSETS, tmp_path / "again") == frozen_digest(frozen)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no vae/"):
        materialise(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ConfigError, match="no hub id"):
        materialise("./nowhere", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        materialise("empty/encoderz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no U-Net there"):
        load_unet(tmp_path)
    with pytest.raises(ConfigError, match="no text_encoder/"):
        TextEncoder.from_folder(tmp_path)


def test_wrong_prefix_length_is_refused(frozen):
    text = TextEncoder.from_folder(frozen)

    class Longer:
        tokenizer = staticmethod(lambda value: {"input_ids": list(range(99))})

    with pytest.raises(ConfigError, match="makes 99 tokens of the generation prefix"):
        TextEncoder(text.model, Longer())


def test_processor_needs_no_torchvision(frozen):
    out = load_processor(frozen)(
        text=["<|vision_start|><|image_pad|><|vision_end|>hi"],
        images=[Image.new("RGB", (512, 512))],
        return_tensors="pt",
    )
    assert out["image_grid_thw"].tolist() == [[1, 4, 4]]
    assert "mm_token_type_ids" in out


def test_odd_sizes_are_refused(published):
    with pytest.raises(ValueError, match="multiples of 16"):
        Generator.load(published).pictures(["a"], [0], Sampling(1, 1.0, 1.0), size=(40, 32))


def test_a_saturated_pixel_still_gets_a_gradient(frozen):
    vae = load_vae(frozen)
    list(vae.decoder.parameters())[-2].mul_(20)  # an untrained one never overshoots
    latents = torch.randn(1, vae.config.latent_channels, 2, 2).requires_grad_()
    raw, images = vae.decode(latents).sample, decode(vae, latents)
    assert torch.equal(images, raw.clamp(-1, 1))
    assert (raw.abs() > 1).any()
    (through,) = torch.autograd.grad(images.sum(), latents)
    (expected,) = torch.autograd.grad(raw.sum(), latents)
    torch.testing.assert_close(through, expected)
