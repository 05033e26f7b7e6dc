"""Hundreds of hostile files and URLs at once: no crash, no hang, bounded memory, and a reason for everything."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from data_prep.build.published import read_dataset
from data_prep.build.store import open_store
from data_prep.build.verify import verify

ROOT = Path(__file__).parents[3]
HOSTS = (
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "10.0.0.1", "172.16.0.1"),
    *("192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "198.18.0.1", "224.0.0.1", "255.255.255.255"),
    *(
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
    ),
    *("[2002:7f00:1::]", "localhost", "LOCALHOST", "127.0.0.1.", "①②⑦.⓪.⓪.①", "127.0.0.1:80", "127。0。0。1"),
)
OTHERS = (
    *(
        "file:///etc/passwd",
        "ftp://127.0.0.1/a.jpg",
        "gopher://127.0.0.1:70/_",
        "data:image/png;base64,AAAA",
        "javascript:1",
    ),
    *(
        "http://",
        "http:///a.jpg",
        "//127.0.0.1/a.jpg",
        "a.jpg",
        " ",
        "http://user:password@127.0.0.1/",
        "http://127.0.0.1:22/",
    ),
    *(
        "http://127.0.0.1\\@example.com/",
        "http://[::1",
        "http://127.0.0.1/\u0000",
        "http://%31%32%37.0.0.1/",
        "HTTP://127.0.0.1/",
    ),
)
PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
from data_prep.build.config import load_build
from data_prep.build.run import run_build
run_build(load_build(sys.argv[1]))
# Not `ru_maxrss`, which starts at the peak of the process that started this one.
print(*(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


def hostile_files() -> dict[str, bytes]:
    spec = importlib.util.spec_from_file_location("hostile", ROOT / "tests" / "media" / "hostile_files.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: content for make in (module.damaged_files, module.hostile_files) for name, content in make()}


@pytest.mark.slow
def test_everything_has_a_reason(tmp_path: Path) -> None:
    files = hostile_files()
    folder = tmp_path / "files"
    folder.mkdir()
    for number, content in enumerate(files.values()):
        (folder / f"{number:04d}.jpg").write_bytes(content)
    urls = [f"http://{host}/a.jpg" for host in HOSTS] + list(OTHERS)
    assert len(files) >= 300
    assert len(urls) >= 40
    (tmp_path / "urls.jsonl").write_text("".join(json.dumps({"url": url, "text": "x"}) + "\n" for url in urls))
    values: dict[str, Any] = {
        "sources": [
            {"kind": "folder", "path": str(folder), "name": "files"},
            {
                "kind": "url_list",
                "path": str(tmp_path / "urls.jsonl"),
                "name": "urls",
                "columns": {"image": "url", "text": "text"},
            },
        ],
        "output": str(tmp_path / "out"),
        "workers": 1,
        "fetch": {"retries": 0, "deadline": 5},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "mine.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) < 1.2 * 2**30
    info = read_dataset(open_store(str(tmp_path / "out")))
    assert info is not None
    (increment,) = info.increments
    assert increment.num_inputs == len(files) + len(urls)
    assert increment.num_inputs == increment.num_kept + increment.num_rejected
    assert "unexpected" not in increment.rejected
    rejects = pq.read_table(tmp_path / "out" / info.rejects.name).to_pylist()
    assert len(rejects) == increment.num_rejected
    assert all(row["reason"] and row["detail"] and row["row"] for row in rejects)
    assert sum(row["source"] == "urls" for row in rejects) == len(urls)
    assert info.failures.rows <= len(urls)
    assert verify(str(tmp_path / "out")).ok
