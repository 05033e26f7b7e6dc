"""A process of its own, for work that may end the process it runs in: a crash of a C library, or the OOM killer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Place = tuple[int, ...]
Note = Callable[[Place], None]  # called by the work to say where it is

WATCH_S = 0.5  # between looks at whether the parent is still there


class Died(Exception):
    """The process ended before the work did."""

    def __init__(self, place: Place | None, how: str) -> None:
        super().__init__(f"ended by {how}")
        self.place = place  # what the work noted last
        self.how = how  # name of the signal, or the exit code


class Alone:
    """A process that runs one function after another; in place of one that died the next function gets a new one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(
        self,
        function: Callable[Concatenate[Note, Arguments], Result],
        /,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Result:
        """Run a function; all that goes in and comes out is pickled. Its first argument is what it notes places with.

        Raises:
            Died: the process ended.
            Exception: what the function raised.
        """
        place: Place | None = None
        try:
            if self._process is None:
                self._start()
            pipe = cast(Connection, self._pipe)
            pipe.send((function, arguments, named))
            while True:
                what, value = pipe.recv()
                if what == "result":
                    return cast(Result, value)
                if what == "error":
                    raise value
                place = value
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise Died(place, self._end()) from None

    def _start(self) -> None:
        self._pipe, other = Pipe()
        paths = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-m", __name__, str(other.fileno()), str(os.getpid())]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=2,  # stdout is for results
            pass_fds=[other.fileno()],
            env={**os.environ, "PYTHONPATH": paths},
        )
        other.close()

    def _end(self) -> str:
        """Let go of the process; how it ended."""
        if self._pipe is not None:
            self._pipe.close()  # an idle process ends with this
        code = 0
        if self._process is not None:
            try:
                code = self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                code = self._process.wait()
        self._process = self._pipe = None
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _serve(descriptor: int, parent: int) -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(
            "1000"
        )  # rather this process than one that has others to look after
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    pipe = Connection(descriptor)
    while True:
        try:
            function, arguments, named = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[str, Any] = (
                "result",
                function(lambda place: pipe.send(("place", place)), *arguments, **named),
            )
        except Exception as error:
            answer = ("error", error)
        try:
            pipe.send(answer)
        except BrokenPipeError:
            return


def _watch(parent: int) -> None:
    """End with the parent, whatever is being done."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
