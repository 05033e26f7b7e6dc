"""Four kinds of source at once, on disk and on S3, and what happens where pictures have to be fetched."""

from __future__ import annotations

import csv
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from data_prep.build.config import BuildConfig
from data_prep.build.report import write_report
from data_prep.build.run import Outcome, last_config, run_build, run_retry
from data_prep.build.store import open_store
from data_prep.build.tables import local_file
from data_prep.build.verify import collect_garbage, verify
from dreamline.config import ConfigError
from dreamline.data.collection import TableEntry

Make = Callable[..., BuildConfig]


class Site:
    """A web server whose answers a test decides; counts what it is asked for."""

    def __init__(self) -> None:
        self.pictures: dict[str, bytes] = {}
        self.broken: set[str] = set()  # answered with 503
        self.asked: Counter[str] = Counter()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                name = self.path.lstrip("/")
                site.asked[name] += 1
                status = 503 if name in site.broken else 200 if name in site.pictures else 404
                content = site.pictures[name] if status == 200 else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Content-Type", "image/jpeg")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def site(make_jpeg: Any, make_picture: Any) -> Iterator[Site]:
    site = Site()
    site.pictures = {f"{seed}.jpg": make_jpeg(make_picture(100 + seed)) for seed in range(6)}
    yield site
    site.server.shutdown()
    site.server.server_close()


FETCH = {"allow_private": True, "retries": 0, "host_rate": 0}


@pytest.fixture
def urls(site: Site, tmp_path: Path) -> Path:
    place = tmp_path / "urls.csv"
    with place.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["url", "caption", "licence"])
        writer.writerows([f"{site.address}/{n}.jpg", f"fetched {n}", "CC0"] for n in range(7))  # the last is not there
    return place


def url_source(place: Path) -> dict[str, Any]:
    columns = {"image": "url", "text": "caption", "licence": "licence"}
    return {"kind": "url_list", "path": str(place), "name": "web", "columns": columns}


@pytest.fixture
def four(urls: Path, tmp_path: Path, pictures: Callable[[Path, range], Path], make_jpeg: Any, make_picture: Any) -> Any:
    """A folder, a list of URLs, a parquet file with pictures, and a WebDataset archive."""
    folder = pictures(tmp_path / "pictures", range(5))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff but no more")
    rows = [{"bytes": make_jpeg(make_picture(200 + n)), "text": f"row {n}", "score": n / 10} for n in range(4)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with webdataset.TarWriter(str(tmp_path / "more.tar")) as tar:
        for n in range(3):
            tar.write({"__key__": f"sample{n}", "jpg": make_jpeg(make_picture(300 + n)), "txt": f"from a tar {n}"})
        tar.write({"__key__": "again", "jpg": rows[1]["bytes"], "txt": "a picture of another source"})
    return [
        {"kind": "folder", "path": str(folder), "name": "folder", "caption": "filename"},
        url_source(urls),
        {
            "kind": "parquet",
            "path": str(tmp_path / "rows.parquet"),
            "name": "table",
            "columns": {"image": "bytes", "text": "text", "scores": {"liked": "score"}},
        },
        {"kind": "webdataset", "path": str(tmp_path / "more.tar"), "name": "archive"},
    ]


def rows(outcome: Outcome, entry: TableEntry | None) -> list[dict[str, Any]]:
    assert entry is not None
    with local_file(open_store(outcome.location), entry.name) as path:
        found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def test_four_sources_give_one_fingerprint_on_disk_and_on_s3(
    four: list[dict[str, Any]], tmp_path: Path, configured: Make, s3: str
) -> None:
    outcomes = [
        run_build(configured(place, sources=four, fetch=FETCH, shards={"max_samples": 7}))
        for place in (tmp_path / "out", f"{s3}/{tmp_path.name}/out")
    ]
    local, remote = outcomes
    assert local.info.fingerprint == remote.info.fingerprint
    assert [shard.name for shard in local.info.shards] == [shard.name for shard in remote.info.shards]
    for outcome in outcomes:
        increment = outcome.increment
        assert (increment.num_inputs, increment.num_kept, increment.num_ignored) == (21, 18, 0)
        assert increment.rejected["duplicate_key"] == 1
        assert increment.rejected["http_4xx"] == 1
        assert increment.statistics["kept by source"] == {"archive": 3, "folder": 5, "table": 4, "web": 6}
        assert verify(outcome.location).ok
        assert collect_garbage(outcome.location) == []
        by_text = {row["text"]: row for row in rows(outcome, increment.manifest)}
        assert by_text["fetched 3"]["licence"] == "CC0"
        assert by_text["fetched 3"]["url"].endswith("/3.jpg")
        assert dict(by_text["row 2"]["scores"]) == {"liked": pytest.approx(0.2)}
    pages = [open_store(outcome.location).read("report.html") for outcome in outcomes]
    assert pages[0] == pages[1]
    again = run_build(configured(remote.location, sources=four[:1], fetch=FETCH))
    assert open_store(remote.location).read("report.html") != pages[1]
    assert (again.increment.num_kept, again.increment.num_ignored) == (0, 5)
    assert again.info.fingerprint == local.info.fingerprint
    assert write_report(remote.location)["report"] == f"{remote.location}/report.html"
    assert "report.html" in open_store(remote.location).names()


def test_only_transient_failures_are_tried_again(site: Site, urls: Path, tmp_path: Path, configured: Make) -> None:
    site.broken = {"1.jpg", "4.jpg"}
    config = configured(tmp_path / "out", sources=[url_source(urls)], fetch=FETCH)
    first = run_build(config)
    assert first.increment.rejected == {"http_4xx": 1, "http_5xx": 2}
    assert first.info.failures.rows == 3
    before = dict(site.asked)
    site.broken = {"4.jpg"}
    second = run_retry(config)
    assert (second.increment.num_inputs, second.increment.num_kept) == (2, 1)
    assert second.increment.rejected == {"http_5xx": 1}
    assert site.asked["6.jpg"] == before["6.jpg"]  # permanent
    assert site.asked["0.jpg"] == before["0.jpg"]  # there already
    assert second.info.failures.rows == 2
    assert {row["reason"] for row in rows(second, second.info.rejects)} == {"http_4xx", "http_5xx"}
    site.broken = set()
    third = run_retry(last_config(str(tmp_path / "out"), ["workers=1"]))
    assert third.info.num_samples == 6
    assert [row["text"] for row in rows(third, third.increment.manifest)] == ["fetched 4"]
    assert third.info.failures.rows == 1
    assert run_build(config).increment == first.increment
    assert verify(third.location).ok
    whole = run_build(configured(tmp_path / "whole", sources=[url_source(urls)], fetch=FETCH))
    assert whole.info.fingerprint == third.info.fingerprint
    with pytest.raises(ConfigError, match="nothing to try again"):
        run_retry(configured(tmp_path / "nothing", sources=[url_source(urls)]))


def test_what_is_there_is_not_fetched_again(site: Site, urls: Path, tmp_path: Path, configured: Make) -> None:
    run_build(configured(tmp_path / "out", sources=[url_source(urls)], fetch=FETCH))
    before = dict(site.asked)
    with urls.open("a") as file:
        file.write(f"{site.address}/5.jpg,another caption,CC0\n")
    second = run_build(configured(tmp_path / "out", sources=[url_source(urls)], fetch=FETCH))
    assert (second.increment.num_kept, second.increment.num_ignored, second.increment.num_rejected) == (0, 7, 1)
    assert site.asked["0.jpg"] == before["0.jpg"]
    assert site.asked["5.jpg"] == before["5.jpg"] + 1


def test_private_addresses_are_refused_unless_allowed(site: Site, urls: Path, tmp_path: Path, configured: Make) -> None:
    outcome = run_build(configured(tmp_path / "out", sources=[url_source(urls)]))
    assert outcome.increment.num_kept == 0
    assert set(outcome.increment.rejected) <= {"url_port", "address_private"}
    assert outcome.increment.num_rejected == 7
    assert not site.asked
    assert outcome.info.num_samples == 0
    assert outcome.info.shards == ()
    assert verify(outcome.location).ok
