"""A client of chat endpoints that speak OpenAI's protocol, such as vLLM's: pictures and a question in, text out."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from dreamline.config import Config, ConfigError

FailureClass = Literal["timeout", "connect", "status", "response"]
_TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_MAX_RESPONSE = 4 << 20  # bytes; an answer is text
_MAX_WAIT = 60.0  # s, the most that is waited between attempts, whatever the server asks for
_CHECK_S = 20.0  # s that a server has to say that it is there
_MAGIC = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG", "png"), (b"RIFF", "webp"), (b"GIF8", "gif"))


Item = TypeVar("Item")
# Keys of an endpoint that say where and how it is asked, not what it answers.
ADDRESS = frozenset(("base_url", "api_key_env", "api_key_file", "timeout_s", "retries", "backoff_s", "concurrency"))


class EndpointConfig(Config):
    """Where the model is and how it is asked. A key is named, never written here."""

    base_url: str = Field(pattern="^https?://", description="up to and with the version, as http://host:8000/v1")
    model: str
    api_key_env: str | None = Field(None, description="environment variable that holds the key")
    api_key_file: str | None = Field(None, description="file that holds the key")
    timeout_s: float = Field(120, gt=0, description="of one attempt")
    retries: int = Field(4, ge=0, description="further attempts after failures that may pass")
    backoff_s: float = Field(1.0, ge=0, description="before the first retry; doubles, up to 60 s")
    concurrency: int = Field(8, ge=1, description="requests in flight")
    max_tokens: int = Field(512, ge=1)
    temperature: float = Field(0.0, ge=0)
    seed: int | None = 0

    @model_validator(mode="after")
    def _one_key(self) -> EndpointConfig:
        if self.api_key_env and self.api_key_file:
            raise ValueError("give api_key_env or api_key_file, not both")
        return self


@dataclass(frozen=True)
class Question:
    """A text, and the files of the pictures that it is about (JPEG, PNG, WebP or GIF)."""

    text: str
    images: tuple[bytes, ...] = ()
    system: str | None = None


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    text: str
    model: str  # as the server names it
    finish_reason: str | None  # "length" means that the answer was cut off
    attempts: int


@dataclass(frozen=True)
class EndpointFailure:
    """Why there is no answer, after all attempts."""

    reason: FailureClass
    detail: str
    attempts: int
    status: int | None = None
    transient: bool = False


@dataclass
class _Failed(Exception):
    """One attempt that failed; never leaves this module."""

    reason: FailureClass
    detail: str
    transient: bool
    status: int | None = None
    retry_after: float | None = None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key, and turn the question into a GET, so it is an error."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass
class ChatClient:
    """Asks questions, at most `concurrency` at a time. Safe to use from threads."""

    config: EndpointConfig
    _key: str | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._key = _read_key(self.config)
        self._opener = urllib.request.build_opener(_NoRedirects())

    def ask(self, question: Question) -> Answer | EndpointFailure:
        """Ask once, with retries for failures that may pass. Raises nothing for what the server does.

        Raises:
            ValueError: a picture of an unknown format.
        """
        body = json.dumps(self._body(question)).encode()
        for attempt in range(1, self.config.retries + 2):
            try:
                return self._post(body, attempt)
            except _Failed as failed:
                if not failed.transient or attempt > self.config.retries:
                    return EndpointFailure(failed.reason, failed.detail, attempt, failed.status, failed.transient)
                time.sleep(self._wait(attempt, failed.retry_after))
        raise AssertionError("unreachable: the last attempt returns")

    def ask_all(self, questions: Iterable[Question]) -> Iterator[Answer | EndpointFailure]:
        """Answers in the order of the questions; at most two questions per worker are held."""
        for _, answer in self.ask_some(questions, lambda question: question):
            if answer is not None:
                yield answer

    def ask_some(
        self, items: Iterable[Item], question: Callable[[Item], Question | None]
    ) -> Iterator[tuple[Item, Answer | EndpointFailure | None]]:
        """All items in order, with the answer where `question` has one; at most two items per worker are held."""
        pending: deque[tuple[Item, Future[Answer | EndpointFailure] | None]] = deque()
        pool = ThreadPoolExecutor(self.config.concurrency, thread_name_prefix="endpoint")
        try:
            for item in items:
                asked = question(item)
                pending.append((item, None if asked is None else pool.submit(self.ask, asked)))
                if len(pending) >= 2 * self.config.concurrency:
                    yield _answered(*pending.popleft())
            while pending:
                yield _answered(*pending.popleft())
        finally:  # also when the caller stops early
            pool.shutdown(wait=False, cancel_futures=True)

    def check(self) -> None:
        """Ask once whether the server is there and has the model.

        Raises:
            ConfigError: nothing answers, the key is refused, or the server lists its models and this is none of them.
        """
        place = self.config.base_url
        try:
            request = self._request("models")
            with self._opener.open(request, timeout=min(self.config.timeout_s, _CHECK_S)) as response:
                content = response.read(_MAX_RESPONSE)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 401:
                raise ConfigError(f"{place}: the key is refused; set api_key_env or api_key_file") from None
            if error.code >= 500 and error.code != 501:
                raise ConfigError(f"{place}: the server is not ready (HTTP {error.code}); look at its log") from None
            return  # it is there, without a list of models
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", error)
            raise ConfigError(f"{place}: no answer ({why}); start the server, or correct base_url") from None
        served = _model_names(content)
        if served and self.config.model not in served:
            raise ConfigError(
                f"{place}: has no model {self.config.model!r}, but {', '.join(served[:5])}; correct model"
            )

    def _body(self, question: Question) -> dict[str, Any]:
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": data_url(image)}} for image in question.images
        ]
        content.append({"type": "text", "text": question.text})
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if question.system is not None:
            messages.insert(0, {"role": "system", "content": question.system})
        body = {
            "model": self.config.model,
            "messages": messages,
            "max_tokens": self.config.max_tokens,
            "temperature": self.config.temperature,
        }
        return body if self.config.seed is None else body | {"seed": self.config.seed}

    def _post(self, body: bytes, attempt: int) -> Answer:
        request = self._request("chat/completions", body)
        deadline = time.monotonic() + self.config.timeout_s
        content = bytearray()
        try:
            with self._opener.open(request, timeout=self.config.timeout_s) as response:
                while len(content) <= _MAX_RESPONSE and (piece := response.read1(1 << 16)):
                    content += piece
                    if time.monotonic() > deadline:  # the socket's own timeout starts anew with each read
                        raise TimeoutError
        except urllib.error.HTTPError as error:
            with error:
                said = self._censored(error.read(2000).decode("utf-8", "replace").strip())
            transient = error.code in _TRANSIENT
            wait = _seconds(error.headers.get("Retry-After"))
            raise _Failed("status", f"HTTP {error.code}: {said[:300]}", transient, error.code, wait) from None
        except TimeoutError:
            raise _Failed("timeout", f"no answer within {self.config.timeout_s:g} s", True) from None
        except urllib.error.URLError as error:
            slow = isinstance(error.reason, TimeoutError)
            raise _Failed("timeout" if slow else "connect", str(error.reason), True) from None
        except (OSError, http.client.HTTPException) as error:
            raise _Failed("connect", f"{type(error).__name__}: {error}", True) from None
        return self._answer(bytes(content), attempt)

    def _request(self, name: str, body: bytes | None = None) -> urllib.request.Request:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "dreamline"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        return urllib.request.Request(f"{self.config.base_url.rstrip('/')}/{name}", body, headers)

    def _answer(self, content: bytes, attempt: int) -> Answer:
        """Validate a response: JSON of the protocol's form, with a text that is not empty."""
        if len(content) > _MAX_RESPONSE:
            raise _Failed("response", f"more than {_MAX_RESPONSE} bytes", False)
        try:
            value = json.loads(content)
            choice = value["choices"][0]
            text, finish, model = choice["message"]["content"], choice.get("finish_reason"), value.get("model")
        except (ValueError, LookupError, TypeError, AttributeError):
            start = self._censored(content[:200].decode("utf-8", "replace"))
            raise _Failed("response", f"not a chat completion: {start!r}", False) from None
        if not isinstance(text, str) or not text.strip():
            raise _Failed("response", f"an empty answer (finish_reason {finish!r})", False)
        named = model if isinstance(model, str) and model else self.config.model
        return Answer(text.strip(), named, finish if isinstance(finish, str) else None, attempt)

    def _wait(self, attempt: int, retry_after: float | None) -> float:
        wait = self.config.backoff_s * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)  # spread, for many clients
        return float(min(_MAX_WAIT, max(wait, retry_after or 0.0)))

    def _censored(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


def _answered(
    item: Item, future: Future[Answer | EndpointFailure] | None
) -> tuple[Item, Answer | EndpointFailure | None]:
    return item, None if future is None else future.result()


def _model_names(content: bytes) -> list[str]:
    """The names in a list of models; none where it is no such list."""
    try:
        return [str(model["id"]) for model in json.loads(content)["data"]]
    except (ValueError, LookupError, TypeError):
        return []


def data_url(content: bytes) -> str:
    """A picture as a data URL.

    Raises:
        ValueError: neither JPEG, PNG, WebP nor GIF.
    """
    kind = next((name for magic, name in _MAGIC if content.startswith(magic)), None)
    if kind is None:
        raise ValueError("a picture for an endpoint must be JPEG, PNG, WebP or GIF")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _read_key(config: EndpointConfig) -> str | None:
    if config.api_key_env:
        key = os.environ.get(config.api_key_env, "").strip()
        if not key:
            raise ConfigError(f"api_key_env: the environment variable {config.api_key_env} is not set or empty")
        return key
    if config.api_key_file:
        try:
            key = Path(config.api_key_file).read_text().strip()
        except OSError as error:
            raise ConfigError(f"api_key_file: {config.api_key_file}: {error.strerror}") from None
        if not key:
            raise ConfigError(f"api_key_file: {config.api_key_file} is empty")
        return key
    return None


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; its other form, a date, is passed over."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else None
