"""Small sources of every kind, written to any place."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data_prep.record import Problem, Record
from data_prep.sources.config import SourceConfig
from data_prep.sources.presets import presets
from data_prep.sources.reader import open_source
from dreamline.config import build


def picture(number=0, form="JPEG", size=(8, 6)):
    """A small picture file, another one for each number."""
    rng = np.random.default_rng(number)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(buffer, form)
    return buffer.getvalue()


def tar_of(members, **arguments):
    """A tar archive of (name, bytes)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **arguments) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def config(**values):
    return build(SourceConfig, values, "test.yaml")


def read_all(**values):
    """Every row of a source, with the checks that hold for each reader."""
    return read(open_source(config(**values)))


def read(reader):
    spans = reader.spans()
    assert reader.spans() == spans, "planning twice gives the same"
    assert len({span.name for span in spans}) == len(spans), "names of spans are unique"
    reader, spans = pickle.loads(pickle.dumps((reader, spans)))
    rows = []
    for span in reversed(spans):
        found = list(reader.read(span))
        assert all(isinstance(row, Record | Problem) for row in found)
        assert span.num_rows in (None, len(found)), f"{span.name}: {span.num_rows} planned, {len(found)} read"
        rows = found + rows
    assert len({row.row for row in rows}) == len(rows), "names of rows are unique"
    return rows


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows, **arguments):
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, **arguments)
    return buffer.getvalue()


def write(path, rows):
    """A file of rows, or of a text, in the format that its name says."""
    form = parquet if path.suffix == ".parquet" else jsonl
    content = rows.encode() if isinstance(rows, str) else form(rows)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def check(rows, wanted, preset):
    """The first of a preset's rows, which must be as wanted, like the reasons of the others."""
    record, *rest = rows
    assert not isinstance(record, Problem), record
    assert record.kind == presets()[preset].task
    assert record.text == wanted["text"]
    assert record.label == wanted.get("label")
    assert record.provenance.licence == wanted.get("licence", presets()[preset].licence)
    assert dict(record.scores) == pytest.approx(wanted.get("scores", {}))
    if "extra" in wanted:
        assert dict(record.extra) == wanted["extra"]
    assert [row.reason for row in rest] == wanted.get("problems", [])
    return record


@pytest.fixture(scope="session")
def make():
    """The functions above."""
    return SimpleNamespace(
        picture=picture,
        tar=tar_of,
        config=config,
        read_all=read_all,
        read=read,
        jsonl=jsonl,
        parquet=parquet,
        write=write,
        check=check,
    )
