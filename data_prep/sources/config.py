"""One source of a build: where it lies, what it looks like, and which column holds what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from dreamline.config import Config
from dreamline.data.sample import Kind
from dreamline.scenes.world import World

MaskIs = Literal["white", "holes"]
SourceKind = Literal["folder", "url_list", "parquet", "webdataset", "scenes"]
Caption = Literal["filename", "sidecar", "metadata", "none"]
Names = tuple[str, ...]  # the first column that is there and not empty


class Columns(Config):
    """Which column holds what. Several names: the first that is there and not empty.

    A column is a name, or a path into nested values such as `files.0.url`.
    """

    image: Names = Field((), description="the picture (of an edit the target): bytes, {bytes, path}, URL or path")
    source: Names = Field((), description="what is edited")
    mask: Names = Field((), description="where an edit may change the picture; see mask_is")
    text: Names = Field((), description="caption or instruction")
    label: Names = Field((), description="edit type or category")
    url: Names = Field((), description="where the picture comes from, beside pictures that come along as bytes")
    page_url: Names = ()
    licence: Names = ()
    licence_url: Names = ()
    author: Names = ()
    opt_out: Names = Field((), description="what the source says against use for training")
    scores: dict[str, str] = Field({}, description="score name: column with a number")
    extra: tuple[str, ...] = Field((), description="other columns to keep, as text")

    @field_validator(
        *("image", "source", "mask", "text", "label", "url", "page_url", "licence", "licence_url", "author", "opt_out"),
        mode="before",
    )
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        """`name`, `[name, other]` and null are all fine in YAML."""
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else value


class Scenes(Config):
    """Pictures drawn from the scene world: exact captions and edits, nothing to download."""

    world: World = World()
    num_t2i: int = Field(0, ge=0, description="pictures with captions")
    num_edit: int = Field(0, ge=0, description="edit triplets")
    side: int | None = Field(None, ge=16, description="px; the world's size by default")
    seed: int = Field(0, ge=0)


class SourceConfig(Config):
    """One source. `preset` fills in what is known of a public data set; keys given here win over it."""

    kind: SourceKind
    path: str = Field("", description="file, folder or glob, on a local path or s3://bucket/prefix")
    name: str | None = Field(None, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", description="in the manifest and report")
    preset: str | None = Field(None, description="name of a public data set, see docs/data_sources.md")
    task: Kind | None = Field(None, description="t2i or edit; by default a row with a source picture is an edit")
    columns: Columns | None = Field(None, description="which column holds what; each one named here must be there")
    mask_is: MaskIs | None = Field(None, description="white where it may change (default), or holes: transparent there")
    caption: Caption | None = Field(None, description="of a folder: where captions are; by default metadata or sidecar")
    pictures: str | None = Field(None, description="where relative paths of pictures start: folder, s3:// or https://")
    where: dict[str, str] = Field({}, description="column: value that a row must have; other rows are rejected")
    header: tuple[str, ...] | None = Field(None, description="column names of csv and tsv files that have no header")
    quotes: bool | None = Field(None, description='cells of csv and tsv may be in "quotes"; default: csv yes, tsv no')
    licence: str | None = Field(None, description="of rows that do not state one")
    scenes: Scenes | None = Field(None, description="what kind: scenes draws")

    @model_validator(mode="after")
    def _consistent(self) -> SourceConfig:
        if self.kind == "scenes":
            if self.scenes is None or self.scenes.num_t2i + self.scenes.num_edit == 0:
                raise ValueError("kind: scenes needs scenes.num_t2i or scenes.num_edit of at least 1")
        elif not self.path:
            raise ValueError(f"kind: {self.kind} needs a path (file, folder or glob, local or s3://)")
        elif self.scenes is not None:
            raise ValueError(f"scenes: only for kind: scenes, not for kind: {self.kind}")
        if self.caption is not None and self.kind != "folder":
            raise ValueError(f"caption: only for kind: folder; name the column of kind: {self.kind} as columns.text")
        return self
