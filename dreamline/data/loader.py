"""Batches in order, read ahead. Which samples they hold depends on positions alone; the state is one number."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

from dreamline.config import ConfigError

T = TypeVar("T")
A = TypeVar("A")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """An endless sequence of samples."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What names the sequence: plain values such as fingerprint, seed and mixture."""
        ...

    def batch(self, positions: range) -> T_co:
        """The samples at these global positions."""
        ...


class Loader(Generic[T]):
    """This worker's part of each global batch, read ahead of its use.

    Step t of a run takes the global positions [t * G, (t + 1) * G), whatever the number of workers, so a run may go on
    with another one. `samples_seen` counts what was handed out, not what was read: it moves once the last part of a
    global batch is yielded.

    Args:
        source: of batches; with `processes` it is pickled.
        global_batch_size: G, samples of all workers in one step.
        micro_batch_size: samples of one batch; a global batch is then dealt out to the workers micro-batch by
            micro-batch, as training does. None: one batch a step, of G / world_size samples, rounded up or down.
        workers: threads or processes that read; 0: read when asked.
        ahead: batches that are read before they are asked for.

    Raises:
        ConfigError: the global batch cannot be dealt out so.
    """

    def __init__(
        self,
        source: Source[T],
        global_batch_size: int,
        micro_batch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 2,
        ahead: int = 4,
        processes: bool = False,
        samples_seen: int = 0,
    ) -> None:
        if not 0 <= rank < world_size <= global_batch_size:
            raise ConfigError(
                f"rank {rank} of {world_size} workers cannot share global_batch_size {global_batch_size}; "
                "each needs at least one sample"
            )
        if micro_batch_size is not None and global_batch_size % (micro_batch_size * world_size):
            raise ConfigError(
                f"global_batch_size {global_batch_size} is no multiple of micro_batch_size {micro_batch_size} "
                f"times {world_size} workers; change one of them"
            )
        self.source, self.global_batch_size, self.micro_batch_size = source, global_batch_size, micro_batch_size
        self.rank, self.world_size = rank, world_size
        self.workers, self.ahead, self.processes = workers, ahead, processes
        self.samples_seen = samples_seen

    def __iter__(self) -> Iterator[T]:
        """Endless; begins at `samples_seen`."""
        steps = count(self.samples_seen, self.global_batch_size)
        asked = (part for start in steps for part in self.parts(start))
        with closing(read_ahead(self.source.batch, asked, self.workers, self.ahead, self.processes)) as batches:
            for number, batch in enumerate(batches, start=1):
                if number % len(self.parts(0)) == 0:
                    self.samples_seen += self.global_batch_size
                yield batch

    def parts(self, start: int) -> list[range]:
        """This worker's positions of the global batch that begins at `start`, one range per batch."""
        size, micro = self.global_batch_size, self.micro_batch_size
        if micro is None:
            low, high = (size * rank // self.world_size for rank in (self.rank, self.rank + 1))
            return [range(start + low, start + high)]
        firsts = range(start + self.rank * micro, start + size, self.world_size * micro)
        return [range(first, first + micro) for first in firsts]

    def state_dict(self) -> dict[str, Any]:
        """Where the sequence stands, and which sequence it is. Plain values, equal on all workers."""
        return {**self._identity(), "samples_seen": self.samples_seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, of any number of workers; before iterating.

        Raises:
            ConfigError: it is of another sequence; says what differs.
        """
        own = self._identity()
        wrong = [
            f"{name} was {state.get(name)!r}, is {own.get(name)!r}"
            for name in sorted({*own, *state} - {"samples_seen"})
            if name not in own or name not in state or own[name] != state[name]
        ]
        if wrong:
            raise ConfigError(
                f"the saved state belongs to another sequence of samples: {'; '.join(wrong)}. "
                "Set these as they were, or begin a new run"
            )
        self.samples_seen = int(state["samples_seen"])

    def _identity(self) -> dict[str, Any]:
        return {**self.source.identity, "global_batch_size": self.global_batch_size}


_worker_call: Callable[[Any], Any]  # of a reading process


def read_ahead(
    call: Callable[[A], T], asked: Iterable[A], workers: int, ahead: int, processes: bool = False
) -> Generator[T, None, None]:
    """`call` of each of `asked`, in order, up to `ahead` of them before they are needed.

    An error is raised in the place of its result. Close the iterator to end early.

    Args:
        workers: threads that call; 0: nothing is read ahead.
        processes: instead of threads; `call` and what it takes and returns are pickled.
    """
    if not workers:
        yield from map(call, asked)
        return
    pool: Executor
    if processes:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(call,))
        call = _work
    else:
        pool = ThreadPoolExecutor(workers, "read-ahead")
    waiting: deque[Future[T]] = deque()
    try:
        for item in asked:
            waiting.append(pool.submit(call, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(call: Callable[[Any], Any]) -> None:
    global _worker_call
    _worker_call = call


def _work(item: Any) -> Any:
    return _worker_call(item)
