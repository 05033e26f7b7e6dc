"""Every kind of source gives the same rows from S3 as from a folder."""

from __future__ import annotations

import gzip

import pytest

from data_prep.sources.reader import open_source
from dreamline.config import ConfigError
from dreamline.storage import put

WEB = "https://example.org"


def files(make):
    rows = [{"url": f"{WEB}/{i}.jpg", "caption": f'ü {i}\n"x"'} for i in range(1500)]
    pictures = [{"image": {"bytes": make.picture(i), "path": None}, "text": str(i)} for i in range(40)]
    tar = make.tar(
        [(f"{i}.{end}", content) for i in range(30) for end, content in (("jpg", make.picture(i)), ("txt", b"x"))]
    )
    beside = [{"source_image": "p/2.jpg", "target_image": "p/ü 1.jpg", "instruction": "red"}]
    return {
        "lists/a.jsonl": make.jsonl(rows),
        "lists/b.jsonl.gz": gzip.compress(make.jsonl(rows)),
        "lists/c.parquet": make.parquet(rows, row_group_size=400),
        "lists/d.csv": b"url,caption\n" + b"".join(f'{row["url"]},"{i}\n"\n'.encode() for i, row in enumerate(rows)),
        "pictures/train-0.parquet": make.parquet(pictures, row_group_size=10),
        "tars/a.tar": tar,
        "tars/b.tar.gz": gzip.compress(tar),
        "tars/c.tar": tar[:5000],
        "edits/x.jsonl": make.jsonl(beside),
        "edits/p/ü 1.jpg": make.picture(1),
        "edits/p/2.jpg": make.picture(2),
        "folder/a b.jpg": make.picture(1),
        "folder/a b.txt": b"a caption",
        "folder/deep/c.png": make.picture(2, "PNG"),
        "meta/metadata.jsonl": make.jsonl([{"file_name": "i/1.jpg", "text": "one"}]),
        "meta/i/1.jpg": make.picture(1),
        "meta/i/2.jpg": make.picture(2),
    }


@pytest.mark.parametrize(
    ("where", "values"),
    [
        ("lists", {"kind": "url_list"}),
        ("lists/*.parquet", {"kind": "url_list"}),
        ("pictures", {"kind": "parquet"}),
        ("tars", {"kind": "webdataset"}),
        ("tars/*.gz", {"kind": "webdataset"}),
        ("edits/x.jsonl", {"kind": "url_list", "preset": "seed-data-edit"}),
        ("folder", {"kind": "folder"}),
        ("meta", {"kind": "folder"}),
    ],
)
def test_the_same_rows_as_from_a_folder(make, tmp_path, bucket, where, values):
    top = where.split("/")[0]
    for name, content in files(make).items():
        if name.startswith(f"{top}/"):
            put(tmp_path / name, content)
            put(f"{bucket}/data/{name}", content)
    local = make.read_all(path=str(tmp_path / where), **values)
    remote = make.read_all(path=f"{bucket}/data/{where}", **values)
    assert len(local) > 0
    assert [(row.row, getattr(row, "reason", None)) for row in remote] == [
        (row.row, getattr(row, "reason", None)) for row in local
    ]
    assert [row for row in remote if hasattr(row, "image")] == [row for row in local if hasattr(row, "image")]


def test_what_is_not_there_is_a_clear_error(make, bucket):
    with pytest.raises(ConfigError, match=r"s3://.*/nothing: not a list.*no files at all"):
        open_source(make.config(kind="url_list", path=f"{bucket}/nothing")).spans()
    with pytest.raises(ConfigError, match="no such bucket; set path"):
        open_source(make.config(kind="folder", path="s3://there-is-no-such-bucket/x")).spans()


def test_an_object_that_changes_is_noticed(make, bucket):
    put(f"{bucket}/a.jsonl", make.jsonl([{"url": WEB, "caption": "a"}]))
    reader = open_source(make.config(kind="url_list", path=f"{bucket}/a.jsonl"))
    (span,) = reader.spans()
    put(f"{bucket}/a.jsonl", make.jsonl([{"url": WEB, "caption": "b"}]))
    with pytest.raises(ConfigError, match="has changed since this build was planned"):
        list(reader.read(span))


def test_a_store_that_cannot_be_reached_is_an_error_and_no_rejected_row(make, bucket, monkeypatch):
    from dreamline import storage_s3

    put(f"{bucket}/a.parquet", make.parquet([{"url": WEB, "caption": "a"}]))
    reader = open_source(make.config(kind="url_list", path=f"{bucket}/a.parquet"))
    (span,) = reader.spans()
    head = storage_s3.head
    monkeypatch.setattr(storage_s3, "ATTEMPTS", 1)

    def gone(url):
        found = head(url)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        return found

    monkeypatch.setattr(storage_s3, "head", gone)
    with pytest.raises(storage_s3.StorageError, match=r"a\.parquet"):
        list(reader.read(span))
