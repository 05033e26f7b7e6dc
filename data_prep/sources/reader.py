from __future__ import annotations
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from data_prep.record import Picture, Problem, Record
from data_prep.sources.config import SourceConfig


@dataclass(frozen=True)
class Span:
    name: str
    num_rows: int | None
    files: tuple[str, ...] = ()


class Reader(Protocol):
    def spans(self) -> list[Span]: ...
    def read(self, span: Span) -> Iterator[Record | Problem]: ...


class Folder:
    def __init__(self, c: SourceConfig) -> None:
        self.c = c

    def spans(self) -> list[Span]:
        if self.c.kind == "url_list":
            u = Path(self.c.path).read_text().split()
            return [Span(str(i), 5, tuple(u[i : i + 5])) for i in range(0, len(u), 5)]
        names = sorted(p.name for p in Path(self.c.path).iterdir())
        return [Span(f"{i}", 5, tuple(names[i : i + 5])) for i in range(0, len(names), 5)]

    def read(self, span: Span) -> Iterator[Record | Problem]:
        for n in span.files:
            if self.c.kind == "url_list":
                yield Record(n, "t2i", "cap", Picture(url=n))
            elif n.startswith("edit"):
                other = Path(self.c.path).parent / "src" / n
                yield Record(
                    n,
                    "edit",
                    "make it red",
                    Picture(content=(Path(self.c.path) / n).read_bytes()),
                    Picture(content=other.read_bytes()),
                )
            else:
                yield Record(
                    n, "t2i", n.split(".")[0], Picture(content=(Path(self.c.path) / n).read_bytes()), scores={"a": 1.0}
                )


def open_source(config: SourceConfig) -> Reader:
    return Folder(config)
