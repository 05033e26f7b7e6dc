"""What the frozen parts are trained on, and for how long. No torch here."""

from __future__ import annotations

from pydantic import Field, model_validator

from dreamline.config import Config
from dreamline.scenes.world import World


class VAEConfig(Config):
    """Shape of an AutoencoderTiny; one entry per level, each level halves the sides. The defaults are the demo's."""

    width: int = Field(32, ge=4, description="channels of every level")
    latent_channels: int = Field(8, ge=1)
    encoder_blocks: tuple[int, ...] = Field((0, 1, 1, 2), description="residual blocks, from full resolution down")
    decoder_blocks: tuple[int, ...] = Field(
        (2, 1, 1, 1),
        description="residual blocks, from the latents up; without one at the end, at full resolution, the decoder is "
        "linear behind the last upsampling and blurs shapes",
    )
    batch_size: int = Field(16, ge=1)
    lr: float = Field(3e-3, gt=0)
    clip_norm: float | None = Field(None, gt=0, description="largest L2 norm of the gradient; null: any")
    bfloat16_share: float = Field(
        0.0, ge=0, le=1, description="share of the training, from its beginning, in bfloat16: half the time a step"
    )
    num_objects: tuple[int, int] | None = Field(
        None, description="fewest and most objects in a training scene; the world's own numbers by default"
    )

    @model_validator(mode="after")
    def _as_many_levels(self) -> VAEConfig:
        if len(self.encoder_blocks) != len(self.decoder_blocks):
            raise ValueError(
                f"encoder_blocks has {len(self.encoder_blocks)} levels, decoder_blocks {len(self.decoder_blocks)}"
            )
        return self

    @property
    def factor(self) -> int:
        """Pixels to a latent position, along each side."""
        return int(2 ** (len(self.encoder_blocks) - 1))


class Plan(Config):
    """How long to train and how much to measure. `num_examples` and `num_items` are per template."""

    seed: int = Field(0, ge=0)
    world: World = World()
    vae: VAEConfig = VAEConfig()
    vae_steps: int = Field(5000, ge=1)
    encoder_steps: int = Field(1500, ge=1)
    num_examples: int = Field(16_000, ge=1, description="training prompts")
    num_items: int = Field(480, ge=6, description="held-out prompts, and as many edits, to measure on")
    reader_steps: int = Field(1200, ge=1, description="training of the readers that measure")

    @model_validator(mode="after")
    def _fits(self) -> Plan:
        if self.world.size % (2 * self.vae.factor):
            raise ValueError(
                f"world.size {self.world.size} is no multiple of {2 * self.vae.factor}: the VAE has "
                f"{len(self.vae.encoder_blocks)} levels, and the U-Net halves its latents once more"
            )
        return self
