"""Lists in every format: rows, spans, and what is wrong with them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os

import numpy as np
import pytest

from data_prep.record import Problem, Record
from data_prep.sources import text_formats
from data_prep.sources.reader import open_source
from dreamline.config import ConfigError

WEB = "https://example.org"
NUM = 2500


def rows(num=NUM):
    """Captions with all that makes csv hard."""
    odd = ["plain", 'with "quotes"', "two\nlines", "comma, tab\tend", "ünïcödé 猫", "crlf\r\nline", "'", '"']
    return [{"url": f"{WEB}/{i}.jpg", "caption": f"{i} {odd[i % len(odd)]}"} for i in range(num)]


def write(form, make, items):
    """The rows as a file of a format; what a format cannot hold is made plain first."""
    if form == "parquet":
        return make.parquet(items, row_group_size=300)
    if form == "jsonl":
        return make.jsonl(items)
    if form == "json":
        return json.dumps(items, indent=1, ensure_ascii=False).encode()
    if form == "txt":
        return "".join(item["url"] + "\n" for item in items).encode()
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ["url", "caption"], delimiter="," if form == "csv" else "\t")
    writer.writeheader()
    writer.writerows(items)
    return buffer.getvalue().encode()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "json", "txt", "parquet"])
def test_every_row_comes_once_and_in_order(make, tmp_path, form, zipped):
    if zipped and form == "parquet":
        return
    content = write(form, make, rows())
    path = tmp_path / f"ä list.{form}{'.gz' if zipped else ''}"
    path.write_bytes(gzip.compress(content) if zipped else content)
    extra = {"quotes": True} if form == "tsv" else {"columns": {"text": None}} if form == "txt" else {}
    reader = open_source(make.config(kind="url_list", path=str(path), **extra))
    assert [span.num_rows for span in reader.spans()] == ([1200, 1200, 100] if form == "parquet" else [1000, 1000, 500])
    found = make.read(reader)
    assert [row.image.url for row in found] == [item["url"] for item in rows()]
    if form != "txt":
        assert [row.text for row in found] == [item["caption"].strip() for item in rows()]
    assert [row.row for row in found] == [f"{path.name}#{i}" for i in range(NUM)]


def test_many_files_of_many_formats(make, tmp_path):
    (tmp_path / "deep").mkdir()
    for number, form in enumerate(["csv", "jsonl", "parquet", "json"]):
        (tmp_path / ("deep" if number % 2 else ".") / f"{form}.{form}").write_bytes(write(form, make, rows(3)))
    (tmp_path / "README.md").write_text("no list")
    found = make.read_all(kind="url_list", path=str(tmp_path))
    assert [row.row for row in found[::3]] == [
        "csv.csv#0",
        "deep/json.json#0",
        "deep/jsonl.jsonl#0",
        "parquet.parquet#0",
    ]
    assert len(make.read_all(kind="url_list", path=str(tmp_path / "*" / "*.json*"))) == 6
    assert len(make.read_all(kind="parquet", path=str(tmp_path), columns={"image": "url"})) == 3


def test_row_groups_are_joined_and_cut_without_reading_them(make, tmp_path):
    items = rows(6000)
    (tmp_path / "one.parquet").write_bytes(make.parquet(items))
    (tmp_path / "small.parquet").write_bytes(make.parquet(items, row_group_size=70))
    spans = open_source(make.config(kind="url_list", path=str(tmp_path))).spans()
    assert [span.num_rows for span in spans] == [1000] * 6 + [1050] * 5 + [750]
    found = make.read_all(kind="url_list", path=str(tmp_path))
    assert [row.image.url for row in found] == [item["url"] for item in items] * 2


def test_a_tsv_without_quotes_takes_them_as_they_are(make, tmp_path):
    (tmp_path / "a.tsv").write_text(f'url\tcaption\n{WEB}/a\t"a cat\n{WEB}/b\tb "c" d"\n')
    assert [row.text for row in make.read_all(kind="url_list", path=str(tmp_path))] == ['"a cat', 'b "c" d"']


def test_names_columns_and_scores_of_ones_own(make, tmp_path):
    row = {
        "addr": f"{WEB}/a.jpg",
        "meta": {"title": " a cat ", "by": ["", "me"]},
        "good": 5,
        "bad": "much",
        "tag": None,
        "lic": "CC0",
        "page": WEB,
        "no": "do not train",
        "kind": "x",
    }
    (tmp_path / "a.jsonl").write_bytes(make.jsonl([row, {**row, "lic": "", "good": float("nan")}]))
    columns = {
        "image": "addr",
        "text": ["none", "meta.title"],
        "author": "meta.by",
        "licence": "lic",
        "page_url": "page",
        "opt_out": "no",
        "scores": {"quality": "good", "odd": "bad"},
        "extra": ["kind", "tag", "meta"],
    }
    first, second = make.read_all(kind="url_list", path=str(tmp_path), columns=columns, licence="unknown")
    assert first == Record(
        row="a.jsonl#0",
        kind="t2i",
        text="a cat",
        image=first.image,
        provenance=first.provenance,
        scores={"quality": 5.0},
        extra={"odd": "much", "kind": "x", "meta": '{"title": " a cat ", "by": ["", "me"]}'},
    )
    stated = first.provenance
    assert (stated.licence, stated.author, stated.page_url, stated.opt_out) == ("CC0", "me", WEB, "do not train")
    assert (second.provenance.licence, second.scores) == ("unknown", {})


def test_scores_in_text_are_numbers(make, tmp_path):
    (tmp_path / "a.csv").write_text(f"URL,TEXT,similarity,punsafe,AESTHETIC_SCORE\n{WEB},a,0.25,nan,high\n")
    (found,) = make.read_all(kind="url_list", path=str(tmp_path), preset="laion")
    assert (found.scores, found.extra) == ({"similarity": 0.25}, {"punsafe": "nan", "aesthetic_score": "high"})


def test_a_file_name_that_is_not_utf8(make, tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.csv", "w") as file:
        file.write(f"url,caption\n{WEB},a\n")
    (found,) = make.read_all(kind="url_list", path=str(tmp_path))
    assert found.row == "\\udcff.csv#0"


def test_rows_that_are_not_wanted_are_problems(make, tmp_path):
    (tmp_path / "a.csv").write_text(f"url,caption,lang\n{WEB}/a,a,en\n{WEB}/b,b,de\n")
    kept, problem = make.read_all(kind="url_list", path=str(tmp_path), where={"lang": "en"})
    assert kept.text == "a"
    assert problem == Problem("a.csv#1", "not_selected", "lang is 'de', wanted 'en'")


@pytest.mark.parametrize(
    ("name", "content", "arguments", "message"),
    [
        (
            "a.csv",
            "link,caption\n",
            {},
            r"a\.csv \(first line\): no column 'url' or .*there are: caption, link; .*columns.image",
        ),
        ("a.csv", "url,words\n", {}, r"no column 'caption' or .*columns\.text, or null if the source has none"),
        ("a.jsonl", '{"url": 1, "words": 2}\n', {}, r"a\.jsonl \(first 1 rows\): no column 'caption'"),
        ("a.json", '[{"url": 1}]', {"columns": {"text": "t.0"}}, r"no column 't\.0'; there are: url; .*columns\.text"),
        ("a.csv", "url,caption\n", {"columns": {"author": "by"}}, r"no column 'by'.*columns\.author"),
        ("a.csv", "url,caption\n", {"columns": {"scores": {"s": "S"}}}, r"no column 'S'.*columns\.scores\.s"),
        ("a.csv", "url,caption\n", {"columns": {"extra": ["x"]}}, r"no column 'x'.*columns\.extra"),
        ("a.csv", "url,caption\n", {"where": {"lang": "en"}}, r"no column 'lang'.*where\.lang"),
        ("a.tsv", "x\ty\n", {"header": ["link", "caption"]}, r"header: in the configuration\): no column 'url'"),
        ("a.csv", "url,caption\n".encode("utf-16").decode("latin-1"), {}, "its first line is not UTF-8 text"),
        ("a.md", "x", {}, r"not a list, and none below it \(there are: a\.md\); set path, or another kind"),
        ("a.csv", "url,caption\n", {"task": "edit"}, r"task: edit needs columns\.source"),
    ],
)
def test_wrong_columns_are_one_clear_error(make, tmp_path, name, content, arguments, message):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        open_source(make.config(kind="url_list", path=str(tmp_path), **arguments)).spans()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "url_list"}, "needs a path"),
        ({"kind": "scenes"}, "needs scenes.num_t2i"),
        ({"kind": "parquet", "path": "x", "scenes": {"num_t2i": 1}}, "only for kind: scenes"),
        ({"kind": "url_list", "path": "x", "caption": "filename"}, "only for kind: folder"),
        ({"kind": "zip", "path": "x"}, "Input should be 'folder'"),
        ({"kind": "url_list", "path": "x", "colums": {}}, "colums: Extra inputs"),
    ],
)
def test_wrong_configurations(make, values, message):
    with pytest.raises(ConfigError, match=message):
        make.config(**values)


def test_nothing_there(make, tmp_path):
    with pytest.raises(ConfigError, match="no files at all"):
        open_source(make.config(kind="url_list", path=str(tmp_path / "none.csv"))).spans()


def reasons(found):
    return [row.reason if isinstance(row, Problem) else "ok" for row in found]


def test_bad_rows_are_problems_and_the_rest_is_read(make, tmp_path):
    lines = [
        f"{WEB}/0,fine",
        f"{WEB}/1,too,many",
        f"{WEB}/2",
        ",no url",
        f"{WEB}/4,\xff\xfe",
        f"{WEB}/5,{'x' * 200_000}",
        "",
        f'{WEB}/6,"never closed',
    ]
    (tmp_path / "a.csv").write_bytes(b"url,caption\n" + "\n".join(lines).encode("latin-1"))
    found = make.read_all(kind="url_list", path=str(tmp_path))
    assert reasons(found) == ["ok", "bad_row", "bad_row", "no_picture", "not_utf8", "bad_row", "ok"]
    assert found[1].detail == "3 cells, but 2 columns (url, caption)"
    assert found[1].row == "a.csv#1"


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(make, tmp_path):
    lines = [f"{WEB}/{i},{'y' * 500}" for i in range(1000)]
    (tmp_path / "a.csv").write_text("url,caption\n" + f'{WEB}/x,"open\n' + "\n".join(lines))
    found = make.read_all(kind="url_list", path=str(tmp_path))
    assert reasons(found)[0] == "bad_row"
    assert reasons(found).count("ok") > 700


def test_bad_rows_of_json(make, tmp_path):
    lines = [
        b'{"url": "https://example.org/0", "caption": "fine"}',
        b'{"url": "https://example.org/1", "capt',
        b"[1, 2]",
        b'{"url": "https://example.org/3", "caption": "\\ud800"}',
        b'{"url": 7, "caption": "x"}',
        b'{"url": "https://example.org/5", "caption": {"a": 1}}',
        b'{"url": "https://example.org/6"}',
        b"\xff",
        b"[" * 100_000,
        b"   ",
        b'{"url": "../../etc/passwd", "caption": "x"}',
        b'{"url": "/etc/passwd", "caption": "x"}',
        b'{"url": "gone.jpg", "caption": "x"}',
        b'{"url": "data:image/png;base64,!!", "caption": "x"}',
        b'{"url": "data:image/png;base64,QUJD", "caption": "x"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    found = make.read_all(kind="url_list", path=str(tmp_path))
    assert reasons(found)[:9] == ["ok", *["bad_row"] * 2, "not_utf8", "bad_picture", "bad_text", "ok", *["bad_row"] * 2]
    assert reasons(found)[9:] == ["unsafe_path", "unsafe_path", "missing_picture", "bad_picture", "ok"]
    assert found[6].text is None
    assert found[-1].image.content == b"ABC"


def test_overlong_lines_are_bounded(make, tmp_path, monkeypatch):
    monkeypatch.setattr(text_formats, "MAX_ROW", 1000)
    (tmp_path / "a.jsonl").write_bytes(make.jsonl([*rows(2), {"url": WEB, "caption": "x" * 5000}, *rows(2)]))
    found = make.read_all(kind="url_list", path=str(tmp_path))
    assert reasons(found) == ["ok", "ok", "bad_row", "ok", "ok"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.txt", "a.csv.gz", "a.parquet"])
def test_an_empty_file_is_one_problem(make, tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    (problem,) = make.read_all(kind="url_list", path=str(tmp_path))
    assert (problem.row, problem.reason) == (f"{name}#0", "empty_file")


def test_a_list_without_rows_is_no_problem(make, tmp_path):
    (tmp_path / "a.csv").write_text("url,caption\n")
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "a.jsonl").write_text("\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"url,caption\n"))
    assert make.read_all(kind="url_list", path=str(tmp_path)) == []


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_a_truncated_gzip_file_gives_what_is_there_and_a_problem(make, tmp_path, form):
    content = gzip.compress(write(form, make, rows()))
    path = tmp_path / f"a.{form}.gz"
    for kept in (5, 30, len(content) // 2, len(content) - 3):
        path.write_bytes(content[:kept])
        *sound, problem = make.read_all(kind="url_list", path=str(path), quotes=True)
        assert problem.reason in ("damaged_file", "bad_row")
        assert [row.image.url for row in sound] == [item["url"] for item in rows()[: len(sound)]]
    assert len(sound) >= (1000 if form == "json" else NUM - 1)
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 0xFF
    path.write_bytes(damaged)
    assert any(isinstance(row, Problem) for row in make.read_all(kind="url_list", path=str(path)))


def test_a_truncated_json_array(make, tmp_path):
    content = write("json", make, rows(10))
    (tmp_path / "a.json").write_bytes(content[:-5])
    assert reasons(make.read_all(kind="url_list", path=str(tmp_path))) == ["ok"] * 9 + ["bad_row"]


def test_a_damaged_parquet_file_is_a_problem_and_others_are_read(make, tmp_path):
    content = write("parquet", make, rows())
    (tmp_path / "a.parquet").write_bytes(content[:-100])
    (tmp_path / "b.parquet").write_bytes(content)
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no table PAR1")
    found = make.read_all(kind="url_list", path=str(tmp_path))
    assert [row.row for row in found if isinstance(row, Problem)] == ["a.parquet#0", "c.parquet#0"]
    assert found[0].reason == "damaged_file"
    assert len(found) == NUM + 2


def test_rows_lost_to_damage_within_a_parquet_file_are_all_counted(make, tmp_path):
    noise = np.random.default_rng(0)
    items = [{**item, "caption": noise.bytes(50).hex()} for item in rows()]
    content = bytearray(make.parquet(items, row_group_size=1000, compression="zstd", use_dictionary=False))
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    (tmp_path / "a.parquet").write_bytes(content)
    found = make.read_all(kind="url_list", path=str(tmp_path))
    assert len(found) == NUM
    assert reasons(found)[:1000] == ["ok"] * 1000
    assert reasons(found)[1999] == "damaged_file"
    assert reasons(found)[2000:] == ["ok"] * 500


def test_a_file_that_changes_between_planning_and_reading(make, tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(write("csv", make, rows(5)))
    reader = open_source(make.config(kind="url_list", path=str(path)))
    (span,) = reader.spans()
    path.write_bytes(write("csv", make, rows(6)))
    with pytest.raises(ConfigError, match=r"a\.csv: has changed since this build was planned; start it again"):
        list(reader.read(span))
    path.unlink()
    with pytest.raises(ConfigError, match="has changed"):
        list(reader.read(span))


def test_pictures_beside_a_list_or_elsewhere(make, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "ö").mkdir()
    (tmp_path / "ö" / "1 %20.jpg").write_bytes(b"one")
    (tmp_path / "lists" / "a.csv").write_text("url,caption\nö/1 %20.jpg,x\n")
    (found,) = make.read_all(kind="url_list", path=str(tmp_path / "lists"), pictures=str(tmp_path))
    assert found.image.content == b"one"
    (found,) = make.read_all(kind="url_list", path=str(tmp_path / "lists"), pictures=f"{WEB}/base/")
    assert found.image.url == f"{WEB}/base/%C3%B6/1%20%20.jpg"
    (found,) = make.read_all(kind="url_list", path=str(tmp_path / "lists"))
    assert found.reason == "missing_picture"


def test_relative_paths_do_not_depend_on_the_working_directory_being_named(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("url,caption\n1.jpg,x\n")
    (tmp_path / "1.jpg").write_bytes(b"one")
    for path in ("a.csv", "*.csv", ".", "./a.csv"):
        (found,) = make.read_all(kind="url_list", path=path)
        assert (found.row, found.image.content) == ("a.csv#0", b"one")


def test_memory_does_not_grow_with_the_list(make, tmp_path):
    import tracemalloc

    peaks = []
    for num in (1000, 10_000):
        path = tmp_path / f"{num}.jsonl"
        path.write_bytes(make.jsonl(rows(num)))
        reader = open_source(make.config(kind="url_list", path=str(path)))
        tracemalloc.start()
        assert sum(1 for span in reader.spans() for _ in reader.read(span)) == num
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5 + 100_000
