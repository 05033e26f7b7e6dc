"""What is checked of an edit triplet and where the limits lie. A part that is None does not run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dreamline.config import Config

Range = tuple[float, float]


class Integrity(Config):
    """Both pictures have one geometry and differ; the instruction is a text that an editor could follow."""

    min_characters: int = Field(3, ge=1, description="of the instruction, without white space at its ends")
    max_characters: int = Field(2000, ge=1)
    min_side: int = Field(16, ge=8, description="px; smaller pictures cannot be measured")
    refusals: bool = Field(True, description="reject what a language model says when it declines or apologises")


class Registration(Config):
    """Unintended shift and zoom of the whole picture, from phase correlation of tiles."""

    max_shift: float = Field(0.3, gt=0, description="px, for a picture whose long side is 256 px")
    max_zoom: float = Field(0.004, gt=0, description="|scale - 1|")
    min_agreement: float = Field(
        0.4, gt=0, le=1, description="share of all tiles that must tell of the same motion, or nothing is concluded"
    )


class Change(Config):
    """Size and shape of what changed."""

    floor: float = Field(12, gt=0, le=255, description="levels of 255 below which a blurred difference is no change")
    ceiling: float = Field(40, gt=0, le=255, description="levels above which it always is one, whatever Otsu says")
    min_area: float = Field(0.002, ge=0, le=1, description="share of the picture; less is `no_change`, for any type")
    local_area: Range = Field((0.005, 0.6), description="least and largest share for local types")
    global_area: Range = Field((0.5, 1.0), description="the same for style and global types")
    background_area: Range = Field((0.1, 1.0), description="the same for a new background")
    max_scatter: float = Field(0.5, ge=0, le=1, description="share of the change outside its three largest pieces")
    min_in_mask: float = Field(0.5, ge=0, le=1, description="share of the change that lies in the mask, if one came")


class Background(Config):
    """What a local edit must leave alone: everything outside the dilated mask."""

    min_ssim: float = Field(0.9, ge=-1, le=1)
    min_psnr: float = Field(26, ge=0, description="dB")
    max_lab_shift: float = Field(3, ge=0, description="length of the mean CIELAB difference")
    min_area: float = Field(0.05, gt=0, lt=1, description="with a smaller background nothing is concluded")


class Quality(Config):
    """Damage that generators and file formats leave: blur, noise, seams, clipping, blocks, bands, gaudy colours."""

    sharpness: Range = Field((0.5, 2.0), description="variance of the Laplacian, target / source, where unchanged")
    sharpness_global: Range = Field((0.1, 10.0), description="the same over the picture, for types without background")
    max_clipped: float = Field(0.03, ge=0, le=1, description="growth of the share of clipped pixels where unchanged")
    max_clipped_global: float = Field(0.25, ge=0, le=1, description="the same for style and global types")
    max_blockiness: float = Field(0.35, gt=0, description="growth of the excess of differences on an 8 px grid")
    max_band: float = Field(0.015, ge=0, le=1, description="width of a uniform band at a border, of the shorter side")
    max_chroma: float = Field(5, ge=0, description="change of the mean CIELAB chroma where unchanged")
    max_chroma_global: float = Field(35, ge=0, description="its growth for types without background")
    max_seam: float = Field(0.14, ge=0, le=1, description="length of a straight faint step, of the shorter side")


class TypeRules(Config):
    """What the pixels must show if the instruction is of a type."""

    min_edges_kept: float = Field(0.5, ge=-1, le=1, description="recolour: correlation of edge maps inside the change")
    min_recolour: float = Field(8, ge=0, description="recolour: mean CIELAB difference inside the change")
    min_outline: float = Field(0.1, ge=0, description="add: log of the growth of the contrast across the outline")
    min_stroke_change: float = Field(0.02, ge=0, le=1, description="text: share of the change whose strokes changed")
    min_strokes: float = Field(0.04, ge=0, le=1, description="text: share of strokes there, before or after")
    min_border: float = Field(0.3, ge=0, le=1, description="background: share of the picture's border that changed")


class Scores(Config):
    """Limits on scores that a model gave, by name (a rubric of a VLM, a similarity); none is asked here."""

    min: dict[str, float] = Field({}, description="least value by name; a pair without the score is rejected")
    rubric: tuple[str, ...] = Field((), description="names whose geometric mean is taken; values >= 0")
    min_rubric: float = Field(0, ge=0, description="least geometric mean of the rubric")


class Foreground(Config):
    """Where a pair differs, as the emphasis of the training loss needs it; the constants are UniWorld-V1's."""

    threshold: int = Field(18, ge=1, le=255, description="levels of the grey difference")
    kernel: int = Field(5, ge=1, description="px, side of the ellipse of the closing")
    min_piece: float = Field(0.3, ge=0, le=1, description="pieces below this share of the white area are dropped")
    min_area: float = Field(0.001, ge=0, le=1, description="less but not nothing is `foreground_too_small`")


class EditChecksConfig(Config):
    """The filter bank. By default only integrity rejects; `EditChecksConfig.full()` is everything at its default."""

    integrity: Integrity = Integrity()
    registration: Registration | None = None
    change: Change | None = None
    background: Background | None = None
    quality: Quality | None = None
    types: TypeRules | None = None
    scores: Scores | None = None
    foreground: Foreground | None = None
    side: int = Field(512, ge=64, description="px, long side at which changes are measured; larger ones are reduced")

    @classmethod
    def full(cls) -> EditChecksConfig:
        """All checks that need no scores, at the calibrated defaults, and foreground masks."""
        return cls(
            registration=Registration(),
            change=Change(),
            background=Background(),
            quality=Quality(),
            types=TypeRules(),
            foreground=Foreground(),
        )


class AugmentConfig(Config):
    """New edits made of the accepted ones of a build. They are no inputs and are counted by themselves."""

    inverse: bool = Field(False, description="target -> source, where the instruction says how to go back")
    chain: bool = Field(False, description="A -> B and B -> C as A -> C")
    merge: bool = Field(False, description="two local edits of one picture, whose changes lie apart, as one")
    max_composed: int = Field(4, ge=1, description="chains and attempted merges that begin at one picture")
    gap: int = Field(8, ge=0, description="px that must lie between changes that are merged")


class EditSetConfig(Config):
    """Rules over all edits of a build. What is None or empty does not run."""

    duplicates: bool = Field(False, description="reject a second edit of like pictures by a like instruction")
    max_distance: int = Field(4, ge=0, le=15, description="bits between 64-bit hashes of like source pictures")
    min_similarity: float = Field(0.9, gt=0, le=1, description="Jaccard similarity of words and pairs of words")
    max_per_source: int | None = Field(None, ge=1, description="edits of one source picture")
    balance: dict[str, float] = Field({}, description="wanted share by edit type; others share what is left")
    balance_by: Literal["weights", "caps"] = "weights"  # draw types more or less often, or leave edits out
    max_weight: float = Field(4, ge=1, description="largest sampling weight that the balance may give")

    @model_validator(mode="after")
    def _shares(self) -> EditSetConfig:
        if any(share < 0 for share in self.balance.values()) or sum(self.balance.values()) > 1 + 1e-9:
            raise ValueError(f"balance: shares must be >= 0 and sum to at most 1, got {self.balance}; lower them")
        return self
