"""Properties of the maths."""

from __future__ import annotations

import math

import pytest
import torch

from dreamline.diffusion.flow import (
    flow_matching_loss,
    foreground_weight,
    interpolate,
    velocity_target,
    x0_from_velocity,
)
from dreamline.diffusion.guidance import edit_guidance, text_guidance
from dreamline.diffusion.randomness import generator, normals, uniforms
from dreamline.diffusion.sampler import predict_x0, roll_to, sample
from dreamline.diffusion.timesteps import deployment_sigmas, logit_normal, resolution_factor, shift


@pytest.fixture
def pair():
    return normals((3, 4, 4), 0, range(5), "x0"), normals((3, 4, 4), 0, range(5), "noise")


def test_a_small_edit_weighs_as_much_as_the_rest():
    source = torch.zeros(3, 2, 4, 4)
    x0 = source.clone()
    x0[0, :, :2, :2] = 1.0  # a quarter
    x0[1] = 1.0  # everything; the last pair is unchanged
    weight = foreground_weight(x0, source, threshold=0.5)
    assert weight.shape == (3, 1, 4, 4)
    assert weight[0, 0].tolist() == [[3.0, 3.0, 1.0, 1.0]] * 2 + [[1.0] * 4] * 2
    assert torch.equal(weight[1:], torch.ones(2, 1, 4, 4))
    assert torch.equal(foreground_weight(x0, source, threshold=1.5), torch.ones(3, 1, 4, 4))


def test_ends_of_the_path(pair):
    x0, noise = pair
    assert torch.equal(interpolate(x0, noise, torch.zeros(5)), x0)
    assert torch.equal(interpolate(x0, noise, torch.ones(5)), noise)


def test_velocity_gives_the_data_back(pair):
    x0, noise = pair
    sigma = torch.tensor([0.01, 0.3, 0.5, 0.9, 1.0])
    x, velocity = interpolate(x0, noise, sigma), velocity_target(x0, noise)
    torch.testing.assert_close(x0_from_velocity(x, velocity, sigma), x0)


def test_loss_is_zero_at_the_optimum_and_weighted(pair):
    x0, noise = pair
    target = velocity_target(x0, noise)
    assert flow_matching_loss(target, target).abs().max() == 0
    weight = torch.zeros(5, 1, 4, 4)
    weight[:, :, 0] = 4.0
    wrong = target.clone()
    wrong[:, :, 0] += 1
    torch.testing.assert_close(flow_matching_loss(wrong, target, weight), torch.ones(5))


@pytest.mark.parametrize("num_steps", [1, 4, 28])
def test_euler_is_exact_on_straight_paths(pair, num_steps):
    x0, noise = pair
    sigmas = deployment_sigmas(num_steps, 1.6)

    def field(x, sigma):
        return velocity_target(x0, noise)

    torch.testing.assert_close(sample(field, noise, sigmas), x0)
    middle = num_steps // 2
    x = roll_to(field, noise, sigmas, middle)
    torch.testing.assert_close(x, interpolate(x0, noise, sigmas[middle].expand(5)))
    torch.testing.assert_close(predict_x0(field, x, float(sigmas[middle])), x0)


def test_deployment_sigmas_match_the_scheduler():
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    for side in (4, 32, 128):
        for num_steps in (1, 4, 28):
            factor = resolution_factor(side, side)
            scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / num_steps, num_steps).tolist(), mu=math.log(factor))
            torch.testing.assert_close(scheduler.sigmas, deployment_sigmas(num_steps, factor), rtol=1e-5, atol=1e-6)


def test_published_four_step_grid():
    expected = torch.tensor([1.0, 0.9045, 0.7595, 0.5128, 0.0])
    torch.testing.assert_close(deployment_sigmas(4, resolution_factor(128, 128)), expected, atol=1e-4, rtol=0)


def test_shift_and_density():
    sigma = torch.linspace(0, 1, 11)
    assert torch.equal(shift(sigma, 1.0), sigma)
    assert (shift(sigma, 3.0)[1:-1] > sigma[1:-1]).all()
    drawn = logit_normal(normals((), 0, range(4000), "s"), 0.6, 1.0)
    assert drawn.min() > 0
    assert drawn.max() < 1
    assert drawn.median() == pytest.approx(1 / (1 + math.exp(-0.6)), abs=0.03)


def test_guidance_identities(pair):
    u, t = pair
    torch.testing.assert_close(text_guidance(u, t, 1.0), t)
    torch.testing.assert_close(text_guidance(u, t, 0.0), u)
    torch.testing.assert_close(edit_guidance(u, u, t, 2.5, 1.5), text_guidance(u, t, 2.5))
    torch.testing.assert_close(edit_guidance(u, u + 1, t, 1.0, 1.0), t)


def test_random_numbers_depend_on_index_and_purpose_alone():
    together = normals((2, 3), 7, [5, 6, 7], "a")
    assert torch.equal(together[1:], normals((2, 3), 7, [6, 7], "a"))
    assert not torch.equal(together, normals((2, 3), 7, [5, 6, 7], "b"))
    assert not torch.equal(together, normals((2, 3), 8, [5, 6, 7], "a"))
    assert torch.equal(uniforms(1, [3], "x"), uniforms(1, [2, 3], "x")[1:])
    assert generator(0, 2**40, "x").random() != generator(0, 2**40 + 1, "x").random()
