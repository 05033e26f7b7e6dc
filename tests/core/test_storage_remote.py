"""One set of functions for local paths and s3://, the latter against a real server."""

from __future__ import annotations

import io
import multiprocessing
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from dreamline import storage, storage_s3
from dreamline.storage import delete, get_file, list_files, open_read, put, read_bytes, read_range, stat_file


@pytest.fixture(scope="module")
def server():
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["local", "s3"])
def root(request, tmp_path, monkeypatch):
    """A folder to keep files in."""
    if request.param == "local":
        return str(tmp_path)
    return bucket_of(request.getfixturevalue("server"), monkeypatch, request.node.name)


def bucket_of(server, monkeypatch, name):
    import boto3

    for key, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    storage_s3._client.cache_clear()
    bucket = "b" + name.encode().hex()[:50]
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some/prefix"


@pytest.fixture
def s3(server, monkeypatch, request):
    return bucket_of(server, monkeypatch, request.node.name)


def test_what_was_put_is_read_listed_copied_and_deleted(root, tmp_path_factory):
    put(f"{root}/ä b/c#1%.txt", b"hello")
    (tmp_path_factory.mktemp("x") / "y").write_bytes(b"")
    put(f"{root}/z.bin", bytes(range(256)) * 100)
    put(f"{root}/a.txt", b"")
    assert [(entry.name, entry.size) for entry in list_files(root)] == [
        ("a.txt", 0),
        ("z.bin", 25600),
        ("ä b/c#1%.txt", 5),
    ]
    assert read_bytes(f"{root}/ä b/c#1%.txt") == b"hello"
    assert read_bytes(f"{root}/a.txt") == b""
    assert read_range(f"{root}/z.bin", 255, 3) == bytes([255, 0, 1])
    assert read_range(f"{root}/z.bin", 25599, 10) == bytes([255])
    assert read_range(f"{root}/z.bin", 30000, 10) == b""
    assert read_range(f"{root}/z.bin", 3, 0) == b""
    local = tmp_path_factory.mktemp("local") / "deep" / "z"
    get_file(f"{root}/z.bin", local)
    assert local.read_bytes() == bytes(range(256)) * 100
    delete(f"{root}/z.bin")
    delete(f"{root}/z.bin")
    assert [entry.name for entry in list_files(root)] == ["a.txt", "ä b/c#1%.txt"]
    with pytest.raises(FileNotFoundError, match=r"z\.bin"):
        stat_file(f"{root}/z.bin")
    with pytest.raises(FileNotFoundError, match=r"z\.bin"):
        open_read(f"{root}/z.bin")


def test_globs_folders_and_single_files(root):
    for name in ("a/1.csv", "a/2.tsv", "a/deep/3.csv", "b/4.csv", ".hidden/5.csv", "a/.6.csv", "odd[1].csv"):
        put(f"{root}/{name}", b"x")

    def names(pattern):
        return [entry.path.removeprefix(root + "/") for entry in list_files(f"{root}/{pattern}")]

    assert names("*/*.csv") == ["a/1.csv", "b/4.csv"]
    assert names("**/*.csv") == ["a/1.csv", "a/deep/3.csv", "b/4.csv", "odd[1].csv"]
    assert names("a/**/*.csv") == ["a/1.csv", "a/deep/3.csv"]
    assert names("?/[13].csv") == ["a/1.csv"]
    assert names("a") == names("a/") == ["a/1.csv", "a/2.tsv", "a/deep/3.csv"]
    assert names("a/1.csv") == ["a/1.csv"]
    assert names("odd[1].csv") == ["odd[1].csv"]
    assert names("a/nothing*") == names("nothing") == []
    assert [entry.name for entry in list_files(f"{root}/a/*/3.csv")] == ["deep/3.csv"]


def test_a_version_changes_with_the_content(root):
    put(f"{root}/a", b"one")
    before = stat_file(f"{root}/a")
    assert list_files(root)[0].version == before.version
    put(f"{root}/a", b"two")
    assert stat_file(f"{root}/a").version != before.version


def test_if_absent_keeps_what_is_there(root, tmp_path_factory):
    source = tmp_path_factory.mktemp("source") / "file"
    source.write_bytes(b"content")
    assert put(f"{root}/shard", source, if_absent=True)
    assert not put(f"{root}/shard", source, if_absent=True)
    assert not put(f"{root}/shard", b"content", if_absent=True)
    with pytest.raises(FileExistsError, match="other content"):
        put(f"{root}/shard", b"CONTENT", if_absent=True)
    assert read_bytes(f"{root}/shard") == b"content"
    assert put(f"{root}/shard", b"CONTENT")
    assert [entry.name for entry in list_files(root)] == ["shard"]


def test_a_file_can_be_read_from_anywhere(root):
    content = os.urandom(100_000)
    put(f"{root}/f", content)
    with open_read(f"{root}/f", buffer_size=1000) as file:
        assert file.read(10) == content[:10]
        file.seek(-20, io.SEEK_END)
        assert file.read() == content[-20:]
        file.seek(5000)
        file.seek(10, io.SEEK_CUR)
        assert file.read(50_000) == content[5010:55_010]
        assert b"".join(iter(lambda: file.read(777), b"")) == content[55_010:]


def _put_once(location, number, results):
    results.put(put(location, b"the same", if_absent=True))


def test_of_many_writers_of_one_file_one_wins(root):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    writers = [context.Process(target=_put_once, args=(f"{root}/x", i, results)) for i in range(4)]
    for writer in writers:
        writer.start()
    outcomes = [results.get(timeout=60) for _ in writers]
    for writer in writers:
        writer.join()
    assert sorted(outcomes) == [False, False, False, True]
    assert read_bytes(f"{root}/x") == b"the same"


def test_large_files_go_in_parts_and_appear_as_a_whole(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(storage_s3, "PART_SIZE", 5 * 2**20)  # the smallest that S3 takes
    source = tmp_path / "large"
    source.write_bytes(os.urandom(11 * 2**20))
    assert put(f"{s3}/large", source, if_absent=True)
    assert stat_file(f"{s3}/large").version.endswith("-3")  # of three parts
    assert storage.read_bytes(f"{s3}/large") == source.read_bytes()
    assert not put(f"{s3}/large", source, if_absent=True)
    source.write_bytes(os.urandom(11 * 2**20))
    with pytest.raises(FileExistsError, match="other content"):
        put(f"{s3}/large", source, if_absent=True)


def test_a_failed_upload_leaves_nothing(s3, tmp_path, monkeypatch):
    import boto3

    monkeypatch.setattr(storage_s3, "PART_SIZE", 5 * 2**20)
    source = tmp_path / "large"
    source.write_bytes(os.urandom(11 * 2**20))
    with pytest.raises(FileExistsError):
        storage_s3._send_parts(f"{s3}/new", source, "hash", {"IfNoneMatch": "*"} if put(f"{s3}/new", b"x") else {})
    bucket, _ = storage_s3.split_url(s3)
    assert "Uploads" not in boto3.client("s3").list_multipart_uploads(Bucket=bucket)
    assert read_bytes(f"{s3}/new") == b"x"


def test_an_object_that_changes_while_it_is_read_is_an_error(s3):
    put(f"{s3}/f", b"a" * 5000)
    with open_read(f"{s3}/f", buffer_size=1000) as file:
        assert file.read(10) == b"a" * 10
        put(f"{s3}/f", b"b" * 5000)
        with pytest.raises(OSError, match="has changed"):
            file.read()


def test_errors_name_the_object(s3, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such bucket"):
        list_files("s3://not-there-at-all/x")
    with pytest.raises(ValueError, match="s3://bucket/key"):
        stat_file("s3://")
    assert list_files("/".join(s3.split("/")[:3])) == []
    monkeypatch.setattr(storage_s3, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="s3://b/x"):
        stat_file("s3://b/x")


def test_a_store_without_conditional_writes_is_refused(monkeypatch):
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)

        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            content = b"<Error><Code>NotImplemented</Code><Message>If-None-Match</Message></Error>"
            self.send_response(501)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with pytest.raises(storage_s3.StorageError, match="use a store that knows conditional writes"):
            storage_s3.put("s3://b/x", b"content", if_absent=True)
        server.shutdown()
