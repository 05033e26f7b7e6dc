"""Properties of the pure losses."""

from __future__ import annotations

import torch

from distill.losses import discriminator_gan_loss, distribution_matching_loss, generator_gan_loss


def draw(seed: int) -> torch.Tensor:
    return torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


def test_no_loss_and_no_gradient_where_the_scores_agree():
    x0 = draw(0).requires_grad_()
    loss = distribution_matching_loss(x0, draw(1), draw(1))
    loss.sum().backward()
    assert loss.abs().max() == 0
    assert x0.grad.abs().max() == 0


def test_gradient_is_the_normalised_difference_of_the_scores():
    x0, real, fake = draw(0).requires_grad_(), draw(1), draw(2)
    distribution_matching_loss(x0, real, fake).sum().backward()
    scale = (x0.detach() - real).abs().mean(dim=(1, 2, 3), keepdim=True)
    expected = (fake - real) / scale / x0[0].numel()
    torch.testing.assert_close(x0.grad, expected, rtol=1e-5, atol=1e-6)


def test_a_step_moves_towards_the_teacher():
    x0, real = draw(0).requires_grad_(), draw(1)
    distribution_matching_loss(x0, real, x0.detach()).sum().backward()
    moved = x0.detach() - 0.1 * x0.grad
    assert (moved - real).abs().mean() < (x0.detach() - real).abs().mean()


def test_equal_points_do_not_divide_by_zero():
    x0 = draw(0).requires_grad_()
    loss = distribution_matching_loss(x0, x0.detach(), draw(2))
    loss.sum().backward()
    assert torch.isfinite(x0.grad).all()


def test_gan_losses():
    high, low = torch.tensor([5.0]), torch.tensor([-5.0])
    assert generator_gan_loss(high) < 0.01 < generator_gan_loss(low)
    assert discriminator_gan_loss(high, low) < 0.02
    assert discriminator_gan_loss(low, high) > 5
    both_zero = discriminator_gan_loss(torch.zeros(1), torch.zeros(1))
    torch.testing.assert_close(both_zero, 2 * torch.log(torch.tensor([2.0])))
