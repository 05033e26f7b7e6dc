"""Shape of the networks. No torch here."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from dreamline.config import Config


class UNetConfig(Config):
    """A DreamLite U-Net. The defaults are the demo's; `DREAMLITE` is the released 0.39 B network."""

    block_out_channels: tuple[int, ...] = Field((64, 96), min_length=2)
    self_attention: tuple[bool, ...] = Field((True, True), description="per level; the released network: the last only")
    layers_per_block: int = Field(1, ge=1)
    transformer_layers_per_block: tuple[int, ...] = (1, 1)
    num_heads: tuple[int, ...] = (4, 4)
    num_kv_heads: int = Field(1, ge=1)
    cross_attention_dim: int = Field(128, ge=8)
    ff_mult: int = Field(2, ge=1)
    time_id_dim: int = Field(32, ge=8, description="width of the embedding of each side length")
    norm_num_groups: int = Field(16, ge=1)

    @model_validator(mode="after")
    def _per_level(self) -> UNetConfig:
        levels = len(self.block_out_channels)
        for name in ("self_attention", "transformer_layers_per_block", "num_heads"):
            if len(getattr(self, name)) != levels:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries, block_out_channels has {levels}")
        for width, heads in zip(self.block_out_channels, self.num_heads, strict=True):
            if width % heads or width % self.norm_num_groups:
                raise ValueError(f"width {width} is no multiple of num_heads {heads} and norm_num_groups")
            if heads % self.num_kv_heads:
                raise ValueError(f"num_heads {heads} is no multiple of num_kv_heads {self.num_kv_heads}")
        return self

    def diffusers(self, text_dim: int, latent_channels: int, sample_size: int) -> dict[str, Any]:
        """Arguments of `diffusers.DreamLiteUNetModel`."""
        attention = ["CrossAttn" if own else "CrossAttnNoSelfAttn" for own in self.self_attention]
        up = [f"DreamLite{kind}UpBlock2D" for kind in reversed(attention)]
        if not self.self_attention[0]:
            up[-1] = "DreamLiteUpBlock2D"  # the highest resolution goes up without attention
        return {
            "sample_size": sample_size,
            "in_channels": latent_channels,
            "out_channels": latent_channels,
            "block_out_channels": self.block_out_channels,
            "down_block_types": tuple(f"DreamLite{kind}DownBlock2D" for kind in attention),
            "up_block_types": tuple(up),
            "layers_per_block": self.layers_per_block,
            "transformer_layers_per_block": self.transformer_layers_per_block,
            "attention_head_dim": self.num_heads,  # diffusers' name for the number of heads
            "num_kv_heads": self.num_kv_heads,
            "cross_attention_dim": self.cross_attention_dim,
            "encoder_hid_dim": text_dim,
            "encoder_hid_dim_type": "text_proj_rms",
            "addition_embed_type": "time",
            "addition_time_embed_dim": self.time_id_dim,
            "projection_class_embeddings_input_dim": 2 * self.time_id_dim,
            "qk_norm": "rms_norm",
            "ff_mult": self.ff_mult,
            "use_sep_conv": True,
            "use_linear_projection": True,
            "norm_num_groups": self.norm_num_groups,
        }


DREAMLITE = UNetConfig(
    block_out_channels=(256, 512, 896),
    self_attention=(False, False, True),
    layers_per_block=2,
    transformer_layers_per_block=(1, 2, 4),
    num_heads=(4, 8, 14),
    cross_attention_dim=2304,
    ff_mult=3,
    time_id_dim=256,
    norm_num_groups=32,
)
