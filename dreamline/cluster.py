"""Independent tasks on a Ray cluster, or in this very process when there is neither a cluster nor a need for one."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dreamline.config import ConfigError

STARTS = 3  # of a private cluster, before its failure counts
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_tasks(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 1,
    on_done: Callable[[int, Result], None] | None = None,
    threads: int = 1,
) -> list[Result]:
    """Apply a function to every item, at most `workers` at a time, and return the results in the order of the items.

    Inside a cluster (RAY_ADDRESS is set, as job submission does, or this process is a Ray driver) each item is a Ray
    task of one CPU, and tasks spread over the nodes. Without one, one worker or one item runs here and needs no Ray;
    more start a private cluster that ends with the call. A task is repeated when its process or node dies, so
    `function` must be idempotent; it, the items and the results are pickled.

    Args:
        function: of a module that other processes can import, not of `__main__` (a `functools.partial` of one will do).
        items: one per task.
        workers: largest number of tasks at a time.
        on_done: called here with the number of finished tasks (1, 2, ...) and the result just in, as they finish.
        threads: compute threads of a task's process. In this process the caller's setting stays.

    Raises:
        Exception: what `function` raised, as soon as one task fails; tasks under way are cancelled.
    """
    if not items:
        return []
    if min(workers, len(items)) == 1 and not _in_cluster():
        return _map_here(function, items, on_done)
    return _map_on_ray(function, items, workers, on_done, threads)


def connect(workers: int) -> bool:
    """Make this process a Ray driver: of the cluster it was submitted to, or of a private one with `workers` CPUs.

    Returns:
        Whether the cluster is private: then whoever asked for it also shuts it down.
    """
    private = not _in_cluster()
    if private:
        _private_settings()
    import ray

    if private:
        _start(workers)
    elif not ray.is_initialized():
        ray.init(logging_level="WARNING")  # attaches to RAY_ADDRESS
    return private


def _start(workers: int) -> None:
    """Start a private cluster. On a busy machine the half minute that Ray gives its own processes can be too short."""
    import ray

    for attempt in range(STARTS):
        try:
            ray.init(address="local", num_cpus=workers, include_dashboard=False, logging_level="WARNING")
            return
        except Exception as error:
            if "timed out during startup" not in str(error) or attempt == STARTS - 1:
                raise
            ray.shutdown()


def _in_cluster() -> bool:
    ray = sys.modules.get("ray")  # a driver has imported it; nobody else should pay for the import
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and bool(ray.is_initialized()))


def _map_here(
    function: Callable[[Item], Result], items: Sequence[Item], on_done: Callable[[int, Result], None] | None
) -> list[Result]:
    results = []
    for item in items:
        results.append(function(item))
        if on_done is not None:
            on_done(len(results), results[-1])
    return results


def _map_on_ray(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    on_done: Callable[[int, Result], None] | None,
    threads: int,
) -> list[Result]:
    private = connect(workers)
    import ray

    environment = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",  # spinning threads starve the other tasks of a shared core
    }
    task = ray.remote(_call).options(
        num_cpus=1, max_retries=3, scheduling_strategy="SPREAD", runtime_env={"env_vars": environment}
    )
    shared = ray.put(function)
    waiting = list(enumerate(items))[::-1]
    running: dict[Any, int] = {}
    results: dict[int, Result] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                position, item = waiting.pop()
                running[task.remote(shared, item)] = position
            ready, _ = ray.wait(list(running), num_returns=1)
            for reference in ready:
                position = running.pop(reference)
                results[position] = result = _get(reference)
                if on_done is not None:
                    on_done(len(results), result)
    finally:
        for reference in running:
            ray.cancel(reference)
        if private:
            ray.shutdown()
    return [results[position] for position in range(len(items))]


def _get(reference: Any) -> Any:
    """A result. What the configuration got wrong is said as in this process, without the worker's traceback."""
    import ray

    try:
        return ray.get(reference)
    except ConfigError as error:
        raise getattr(error, "cause", error) from None


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _private_settings() -> None:
    """Settings of a cluster of our own. Ray reads them at import and would else leave a token in the home folder."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # or workers starve next to anything else that this machine does
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
