"""The chat client against a real HTTP server on this machine that speaks the protocol, well and badly."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dreamline.config import ConfigError
from dreamline.endpoint import Answer, ChatClient, EndpointConfig, EndpointFailure, Question, data_url
from dreamline.media.jpeg import encode_jpeg

Reply = tuple[int, Any, dict[str, str]]


def completion(text: Any, finish: str = "stop") -> Reply:
    message = {"role": "assistant", "content": text}
    return 200, {"model": "served-model", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}, {}


@pytest.fixture
def server():
    """A server whose `reply(request number, headers, body)` a test sets; it notes what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with owner.lock:
                number = len(owner.seen)
                owner.seen.append((self.path, dict(self.headers), body))
                owner.now += 1
                owner.most = max(owner.most, owner.now)
            status, value, headers = owner.reply(number, self.headers, body)
            with owner.lock:
                owner.now -= 1  # before the answer leaves, as the next question may come at once
            try:
                content = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                for name, text in headers.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client has gone

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        lock = threading.Lock()
        seen: list[tuple[str, dict[str, str], Any]]
        now = most = 0
        reply: Callable[..., Reply]

    owner = Server(("127.0.0.1", 0), Handler)
    owner.seen = []
    thread = threading.Thread(target=owner.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield owner
    owner.shutdown()
    owner.server_close()
    thread.join()


def _client(server, **values) -> ChatClient:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    return ChatClient(EndpointConfig(**{"base_url": url, "model": "m", "backoff_s": 0.01, "timeout_s": 20, **values}))


def test_a_question_with_pictures(server):
    server.reply = lambda *_: completion("  a red fox \n")
    picture = encode_jpeg(np.full((8, 8, 3), 99, np.uint8))
    answer = _client(server, temperature=0.5, max_tokens=7, seed=3).ask(
        Question("what?", (picture, picture), "be brief")
    )
    assert answer == Answer("a red fox", "served-model", "stop", 1)
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("m", 0.5, 7, 3)
    assert body["messages"][0] == {"role": "system", "content": "be brief"}
    first, second, text = body["messages"][1]["content"]
    assert text == {"type": "text", "text": "what?"}
    assert first == second
    kind, _, data = first["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(data) == picture


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_failures_that_may_pass_are_retried(server, status):
    server.reply = lambda number, *_: (status, {"error": "busy"}, {}) if number < 2 else completion("done")
    answer = _client(server).ask(Question("?"))
    assert isinstance(answer, Answer)
    assert (answer.text, answer.attempts, len(server.seen)) == ("done", 3, 3)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_failures_that_stay_are_not_retried(server, status):
    server.reply = lambda *_: (status, {"error": "no such model"}, {})
    failure = _client(server).ask(Question("?"))
    assert isinstance(failure, EndpointFailure)
    assert (failure.reason, failure.status, failure.attempts, failure.transient) == ("status", status, 1, False)
    assert "no such model" in failure.detail


def test_attempts_end_and_the_wait_that_the_server_asks_for_is_kept(server):
    server.reply = lambda *_: (429, b"", {"Retry-After": "1"})
    start = time.monotonic()
    failure = _client(server, retries=1).ask(Question("?"))
    assert isinstance(failure, EndpointFailure)
    assert (failure.attempts, failure.transient, len(server.seen)) == (2, True, 2)
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize(
    "reply",
    [
        (200, b"<html>gateway</html>", {}),
        (200, [], {}),
        (200, {"choices": []}, {}),
        (200, {"choices": [{"message": {}}]}, {}),
        (200, {"choices": [{"message": "hi"}]}, {}),
        (200, b"x" * (5 << 20), {}),
        completion(""),
        completion(None),
        completion(["a"]),
    ],
)
def test_responses_of_another_form_are_failures(server, reply):
    server.reply = lambda *_: reply
    failure = _client(server).ask(Question("?"))
    assert isinstance(failure, EndpointFailure)
    assert (failure.reason, failure.attempts) == ("response", 1)
    assert len(failure.detail) < 400


def test_a_silent_server_times_out(server):
    server.reply = lambda *_: time.sleep(1.5) or completion("late")
    failure = _client(server, timeout_s=0.3, retries=1).ask(Question("?"))
    assert isinstance(failure, EndpointFailure)
    assert (failure.reason, failure.attempts, failure.transient) == ("timeout", 2, True)


def test_a_server_that_drips_times_out():
    """Each byte comes in time, the answer never does: the whole attempt has a limit."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                try:
                    for _ in range(100):
                        connection.sendall(b" ")
                        time.sleep(0.05)
                except OSError:
                    pass

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        failure = ChatClient(EndpointConfig(base_url=url, model="m", timeout_s=0.5, retries=0)).ask(Question("?"))
        thread.join()
    assert isinstance(failure, EndpointFailure)
    assert failure.reason == "timeout"


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = EndpointConfig(base_url=f"http://127.0.0.1:{port}/v1", model="m", retries=2, backoff_s=0.01, timeout_s=5)
    failure = ChatClient(config).ask(Question("?"))
    assert isinstance(failure, EndpointFailure)
    assert (failure.reason, failure.attempts, failure.transient) == ("connect", 3, True)


def test_a_redirect_is_not_followed_with_the_key(server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sekrit-key")
    server.reply = lambda *_: (302, b"", {"Location": "/elsewhere"})
    failure = _client(server, api_key_env="SOME_KEY").ask(Question("?"))
    assert isinstance(failure, EndpointFailure)
    assert failure.status == 302
    assert len(server.seen) == 1


def test_the_key_is_sent_and_never_shown(server, monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_KEY", "sekrit-key\n")
    (tmp_path / "key").write_text("sekrit-key\n")
    server.reply = lambda number, headers, _: (401, f"bad {headers['Authorization']}".encode(), {})
    for values in ({"api_key_env": "SOME_KEY"}, {"api_key_file": str(tmp_path / "key")}):
        client = _client(server, **values)
        failure = client.ask(Question("?"))
        assert server.seen[-1][1]["Authorization"] == "Bearer sekrit-key"
        assert "sekrit" not in f"{failure} {client!r} {client.config!r} {client.config.model_dump()}"
        assert isinstance(failure, EndpointFailure)
        assert "[key]" in failure.detail


def test_a_missing_key_is_an_error_before_anything_is_sent(monkeypatch, tmp_path):
    monkeypatch.delenv("NO_KEY", raising=False)
    base = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    with pytest.raises(ConfigError, match="NO_KEY is not set"):
        ChatClient(EndpointConfig(**base, api_key_env="NO_KEY"))
    with pytest.raises(ConfigError, match="api_key_file"):
        ChatClient(EndpointConfig(**base, api_key_file=str(tmp_path / "none")))
    with pytest.raises(ValidationError, match="not both"):
        EndpointConfig(**base, api_key_env="A", api_key_file="b")
    with pytest.raises(ValidationError, match="base_url"):
        EndpointConfig(base_url="file:///etc/passwd", model="m")


def test_many_questions_keep_their_order_within_the_bound(server):
    taken = []

    def reply(_number, _headers, body):
        text = body["messages"][0]["content"][-1]["text"]
        time.sleep(0.03 if int(text) % 3 else 0.08)
        return completion(f"answer {text}") if text != "7" else (400, b"no", {})

    def questions():
        for number in range(20):
            taken.append(number)
            yield Question(str(number))

    server.reply = reply
    stream = _client(server, concurrency=3).ask_all(questions())
    first = next(stream)
    assert len(taken) <= 6
    answers = [first, *stream]
    assert [item.text if isinstance(item, Answer) else item.status for item in answers] == [
        400 if number == 7 else f"answer {number}" for number in range(20)
    ]
    assert 2 <= server.most <= 3


def test_a_caller_may_stop_early(server):
    server.reply = lambda *_: completion("yes")
    stream = _client(server, concurrency=2).ask_all(Question(str(number)) for number in range(1000))
    next(stream)
    stream.close()
    time.sleep(0.2)
    assert len(server.seen) <= 6


def test_only_pictures_become_data_urls():
    assert data_url(b"\x89PNG....").startswith("data:image/png;base64,")
    with pytest.raises(ValueError, match="JPEG, PNG"):
        data_url(b"%PDF-1.7")
