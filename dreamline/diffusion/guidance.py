"""Classifier-free guidance of velocities. Guiding velocities and guiding x0 at one (x, sigma) are the same thing."""

from __future__ import annotations

from torch import Tensor


def text_guidance(uncond: Tensor, text: Tensor, guidance_scale: float) -> Tensor:
    """u + g (t - u); scale 1 is the conditional prediction. Source: Ho and Salimans 2022."""
    return uncond + guidance_scale * (text - uncond)


def edit_guidance(
    uncond: Tensor, image: Tensor, text: Tensor, guidance_scale: float, image_guidance_scale: float
) -> Tensor:
    """u + g (t - i) + g_img (i - u), with branches without anything, with the source, and with source and text.

    Source: Brooks et al. 2023 (InstructPix2Pix), equation 3, in the branch order of the DreamLite pipeline. With
    i = u it is `text_guidance`, so a generation needs no image branch.
    """
    return uncond + guidance_scale * (text - image) + image_guidance_scale * (image - uncond)
