"""`Record`: one row of any source before it is a sample, and `Problem`: why a row cannot become one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dreamline.data.sample import Kind


@dataclass(frozen=True)
class Picture:
    """A picture file: its bytes, or where to fetch them."""

    content: bytes | None = None
    url: str | None = None


@dataclass(frozen=True)
class Provenance:
    """Where a record comes from and what may be done with it; None where the source does not say."""

    url: str | None = None  # of the picture, also where the bytes came along
    page_url: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    author: str | None = None
    opt_out: str | None = None  # what the source or the server says against use for training


@dataclass(frozen=True)
class Record:
    """One row as a source yields it: nothing fetched, decoded or judged yet."""

    row: str  # "<file>#<number or key>", unique in its source; what errors and rejects name
    kind: Kind
    text: str | None  # caption or instruction; None where the row has none
    image: Picture  # the picture; of an edit the target
    source: Picture | None = None  # of an edit: what is edited
    mask: Picture | None = None  # of an edit: white where it may change
    holes: bool = False  # the mask is transparent there instead
    label: str | None = None  # edit type or category, in the source's own words
    provenance: Provenance = Provenance()
    scores: Mapping[str, float] = field(default_factory=dict)  # numbers that came with the row
    extra: Mapping[str, str] = field(default_factory=dict)  # other columns worth keeping


@dataclass(frozen=True)
class Problem:
    """Why a row cannot go on. `reason` is a short word that counts are kept by, `detail` says it to a person."""

    row: str
    reason: str
    detail: str
