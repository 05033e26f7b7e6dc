"""A vision-language model behind a real HTTP server on this machine, and an S3 server."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dreamline.media.config import DecodeConfig
from dreamline.media.decode import decode


class VisionServer(ThreadingHTTPServer):
    """Sees the mean brightness of pictures: `answers(means, text)` says text and finish reason; no text is HTTP 400."""

    daemon_threads = True
    answers: Callable[[list[float], str], tuple[str, str]]

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), VisionHandler)
        self.served = ["tiny-vl"]  # what it lists under /models
        self.asked: list[list[float]] = []  # means of each question
        self.stopping = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def endpoint(self, **values: Any) -> dict[str, Any]:
        """Configuration of it."""
        url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        return {"base_url": url, "model": "tiny-vl", "backoff_s": 0.01, "concurrency": 3, "timeout_s": 30, **values}

    def stop(self) -> None:
        """Returns when nobody answers any more. May be called twice, and by an answer, which then has to raise."""
        with self.stopping:
            if self.thread.is_alive():
                self.shutdown()
                self.server_close()
                self.thread.join()

    def handle_error(self, *_: Any) -> None:
        """An answer that raises closes its connection; nobody has to read of it."""


class VisionHandler(BaseHTTPRequestHandler):
    server: VisionServer

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": name} for name in self.server.served]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        *images, text = body["messages"][0]["content"]
        files = [base64.b64decode(image["image_url"]["url"].partition(",")[2]) for image in images]
        means = [float(decode(content, DecodeConfig()).pixels.mean()) for content in files]
        self.server.asked.append(means)
        said, finish = self.server.answers(means, text["text"])
        choice = {"message": {"content": said}, "finish_reason": finish}
        self._send(200 if said else 400, {"model": "tiny-vl@1", "choices": [choice]})

    def _send(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve_vlm() -> Iterator[Callable[..., VisionServer]]:
    """Starts servers, on any port or a given one."""
    servers: list[VisionServer] = []

    def start(port: int = 0) -> VisionServer:
        servers.append(VisionServer(port))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def vlm(serve_vlm: Callable[..., VisionServer]) -> VisionServer:
    return serve_vlm()
