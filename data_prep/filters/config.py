"""Which filters run, in four lists. All are empty by default: what is not written does not run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_prep.filters.captions import Pattern, Script
from dreamline.config import Config
from dreamline.endpoint import EndpointConfig

Share = Annotated[float, Field(ge=0, le=1)]


class Resolution(Config):
    """Sides and area of the picture as it came; of an edit of its smaller picture."""

    kind: Literal["resolution"]
    min_side: int = Field(0, ge=0, description="px, the shorter side")
    max_side: int | None = Field(None, ge=1, description="px, the longer side")
    min_pixels: int = Field(0, ge=0, description="width x height")


class Aspect(Config):
    """Longer side over shorter side."""

    kind: Literal["aspect"]
    max_ratio: float = Field(2.0, ge=1)


class Caption(Config):
    """Rules on the caption or instruction. Only what is set is asked."""

    kind: Literal["caption"]
    on_missing: Literal["keep", "reject"] = "reject"
    min_words: int = Field(0, ge=0)
    max_words: int | None = Field(None, ge=1)
    min_chars: int = Field(0, ge=0)
    max_chars: int | None = Field(None, ge=1)
    scripts: tuple[Script, ...] = Field((), description="writing systems that letters may belong to; all if empty")
    min_script_share: Share = Field(0.8, description="of the letters, in those scripts")
    reject: tuple[Pattern, ...] = Field(
        ("url", "html", "placeholder", "filename"), description="also: email, phone, card, ip"
    )
    repeat_words: int = Field(3, ge=1, description="length of the n-grams that may not repeat, words")
    max_repeated: Share = Field(1.0, description="share of those n-grams that occurred before")
    banned: tuple[str, ...] = Field((), description="words or phrases, in any case")
    banned_file: str | None = Field(None, description="more of them, one per line; a path or s3://")


class Blur(Config):
    """Variance of the Laplacian at a fixed scale: see pixels.sharpness."""

    kind: Literal["blur"]
    min_sharpness: float = Field(50.0, ge=0, description="grey levels squared")


class Exposure(Config):
    """Too dark, too bright, clipped or without contrast."""

    kind: Literal["exposure"]
    max_clipped: Share = Field(0.9, description="share of pixels that are all but black or white")
    min_brightness: Share = 0.05
    max_brightness: Share = 0.98
    min_contrast: float = Field(0.02, ge=0, le=0.5, description="standard deviation, of full scale")


class Flat(Config):
    """Little in the picture: few grey levels, or plain areas."""

    kind: Literal["flat"]
    min_entropy: float = Field(1.0, ge=0, le=8, description="bits")
    max_flatness: Share = Field(0.98, description="share of a 16 x 16 grid's cells that are plain")


class Text(Config):
    """Share of the picture under lines of text, estimated from strokes: see pixels.text_share."""

    kind: Literal["text"]
    max_share: Share = 0.1


class Licence(Config):
    """What the source says may be done with a picture, compared as words in any case."""

    kind: Literal["licence"]
    allow: tuple[str, ...] = Field((), description="licences to keep; `*` at the end matches any ending; all if empty")
    deny: tuple[str, ...] = ()
    on_missing: Literal["keep", "reject"] = "keep"


RowRule = Annotated[
    Resolution | Aspect | Caption | Blur | Exposure | Flat | Text | Licence, Field(discriminator="kind")
]


class PixelScores(Config):
    """The measures of pixels.py as scores, so that they can be looked at and cut later."""

    kind: Literal["pixels"]
    measures: tuple[
        Literal["sharpness", "brightness", "contrast", "clipped", "entropy", "flatness", "text_share"], ...
    ] = ("sharpness", "brightness", "contrast", "clipped", "entropy", "flatness", "text_share")

    def gives(self, score: str) -> bool:
        """Whether a score is one of its."""
        return score in self.measures


class Weights(Config):
    """A model: a folder, or the id of a repository on the Hugging Face hub."""

    model: str
    revision: str | None = Field(None, description="commit of a hub repository")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="of the folder's model.safetensors")
    device: str = Field("cpu", description="of torch")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


class Named(Config):
    """A scorer that has a name."""

    name: str = Field(pattern="^[a-z0-9_]+$", description="of the score, or the first part of its scores' names")

    def gives(self, score: str) -> bool:
        """Whether a score is one of its."""
        return score == self.name or score.startswith(f"{self.name}_")


class Aesthetic(Weights, Named):
    """Aesthetic score: a small head over the unit-length CLIP embedding of the picture."""

    kind: Literal["aesthetic"]
    name: str = Field("aesthetic", pattern="^[a-z0-9_]+$")
    head: str = Field(description="safetensors or pth file of a stack of linear layers")
    head_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")


class Classifier(Weights, Named):
    """Probability of some labels of an image classifier: NSFW, watermark."""

    kind: Literal["classifier"]
    labels: tuple[str, ...] = Field(min_length=1, description="of the model; their probabilities are summed")


class Similarity(Weights, Named):
    """Cosine of picture and text in a CLIP or SigLIP model; of an edit, target and instruction."""

    kind: Literal["similarity"]
    name: str = Field("similarity", pattern="^[a-z0-9_]+$")


class Rubric(Named):
    """Scores of an edit, or of a picture with its text, by a vision-language model behind an endpoint."""

    kind: Literal["rubric"]
    name: str = Field("rubric", pattern="^[a-z0-9_]+$")
    endpoint: EndpointConfig
    prompt_file: str | None = Field(None, description="instead of the prompt that comes with this")


ScorerRule = Annotated[PixelScores | Aesthetic | Classifier | Similarity | Rubric, Field(discriminator="kind")]


class Threshold(Config):
    """A decision on a score column. Changing it needs no scoring again."""

    score: str
    min: float | None = None
    max: float | None = None
    on_missing: Literal["keep", "reject"] = "reject"

    @model_validator(mode="after")
    def _bounds(self) -> Threshold:
        if self.min is None and self.max is None:
            raise ValueError(f"threshold on {self.score!r} needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"threshold on {self.score!r}: min {self.min} is above max {self.max}")
        return self


class ExactDuplicates(Config):
    """Same file or same pixels; of an edit the same pair with the same instruction."""

    kind: Literal["exact_duplicates"]
    of: Literal["bytes", "pixels"] = Field("pixels", description="'pixels' covers 'bytes'")


class PerceptualDuplicates(Config):
    """Perceptual hashes within a distance; of an edit, of target and source, with the same instruction."""

    kind: Literal["perceptual_duplicates"]
    max_distance: int = Field(4, ge=0, le=12, description="bits of 63")
    mirrored: bool = Field(True, description="also pictures whose mirror image is near")
    linkage: Literal["direct", "chain"] = Field(
        "direct", description="'direct': what is dropped is near a kept one; 'chain': one of each connected group stays"
    )


class EmbeddingDuplicates(Weights):
    """Embeddings of pictures whose cosine is high (SemDeDup without clusters: all pairs, in blocks)."""

    kind: Literal["embedding_duplicates"]
    min_cosine: float = Field(0.97, gt=0, le=1)
    linkage: Literal["direct", "chain"] = "direct"


class CaptionDuplicates(Config):
    """Captions of like word n-grams (MinHash finds pairs, their exact Jaccard similarity decides).

    Of edits: instructions about one and the same source picture.
    """

    kind: Literal["caption_duplicates"]
    min_jaccard: float = Field(0.8, gt=0, le=1)
    ngram: int = Field(3, ge=1, description="words")
    linkage: Literal["direct", "chain"] = "direct"


class EvaluationSet(Config):
    """What must not be trained on: a folder of pictures, a table of hashes, or a list of prompts, on a path or `s3://`."""

    name: str = Field(pattern="^[a-z0-9_-]+$")
    images: str | None = Field(None, description="folder, searched through")
    hashes: str | None = Field(None, description="parquet, csv or jsonl: id, and sha256, phash (16 hex digits) or both")
    prompts: str | None = Field(None, description="txt (one per line), or csv, jsonl, json, parquet with a column")
    prompt_column: str = "prompt"

    @model_validator(mode="after")
    def _something(self) -> EvaluationSet:
        if self.images is None and self.hashes is None and self.prompts is None:
            raise ValueError(f"evaluation set {self.name!r} needs images, hashes or prompts")
        return self


class Decontamination(Config):
    """Drop what is near an evaluation set, and keep the pairs as evidence."""

    kind: Literal["decontamination"]
    against: tuple[EvaluationSet, ...] = Field(min_length=1)
    max_distance: int = Field(6, ge=0, le=12, description="bits of 63 between perceptual hashes, also mirrored")
    ngram: int = Field(8, ge=1, description="words; shorter prompts must be equal as a whole")
    min_overlap: float = Field(0.5, gt=0, le=1, description="share of a prompt's n-grams that a caption holds")


class CaptionerConfig(Config):
    """Captions of pictures by a vision-language model behind an endpoint; instructions of edits stay as they are."""

    endpoint: EndpointConfig
    when: Literal["missing", "always"] = Field("missing", description="'always' replaces captions that rows have")
    sources: tuple[str, ...] = Field((), description="names of the sources whose pictures are captioned; all if empty")
    prompt_file: str | None = Field(None, description="instead of the prompt that comes with this")
    quality: int = Field(90, ge=1, le=100, description="of the JPEG that the model is shown")

    def wants(self, kind: str, text: str | None, source: str) -> bool:
        """Whether a row of a source gets a caption."""
        asked = kind == "t2i" and (not self.sources or source in self.sources)
        return asked and (self.when == "always" or not (text or "").strip())


SetRule = Annotated[
    ExactDuplicates | PerceptualDuplicates | EmbeddingDuplicates | CaptionDuplicates | Decontamination,
    Field(discriminator="kind"),
]


class FiltersConfig(Config):
    """Rows are judged in this order: rows, scorers, thresholds, sets."""

    rows: tuple[RowRule, ...] = ()
    scorers: tuple[ScorerRule, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    sets: tuple[SetRule, ...] = ()

    @model_validator(mode="after")
    def _names(self) -> FiltersConfig:
        names = [rule.name for rule in self.scorers if not isinstance(rule, PixelScores)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"scorers of the same name: {', '.join(twice)}; give each its own `name`")
        if sum(isinstance(rule, EmbeddingDuplicates) for rule in self.sets) > 1:
            raise ValueError("sets: at most one embedding_duplicates, as a row has one embedding")
        return self
