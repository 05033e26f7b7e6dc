"""Worker processes of one stage on a Ray cluster: ranks, rendezvous, and what happens when one of them is lost."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

GRACE_S = 15.0  # for the others to fail too, once one has: they hang in a collective or see its connection break


class WorkersLost(RuntimeError):
    """A process or node of the group died; the group may be started again."""


def run_group(function: Callable[..., None], arguments: tuple[str, ...], workers: int, max_losses: int = 2) -> None:
    """Call a function on `workers` processes that find each other by torch.distributed's usual environment.

    This process must be a Ray driver already. A lost worker has the whole group started again, and it is for the
    function to go on from what it saved; a function that raises is not called again.

    Args:
        function: of a module that other processes can import, not of `__main__`.
        arguments: what it is called with, on every worker alike.
        workers: processes, each with one GPU where the cluster has any, else one CPU.
        max_losses: groups that may be lost.

    Raises:
        WorkersLost: once too often.
        Exception: what the function raised first on any worker.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    resource = "GPU" if ray.cluster_resources().get("GPU", 0) else "CPU"
    room = placement_group([{resource: 1}] * workers, strategy="PACK")
    try:
        ray.get(room.ready())
        for losses in range(max_losses + 1):
            try:
                return _run_once(function, arguments, workers, resource, room)
            except WorkersLost as error:
                if losses == max_losses:
                    raise
                print(f"{error}; starting the group again ({losses + 1} of {max_losses})", flush=True)
    finally:
        remove_placement_group(room)


def _run_once(
    function: Callable[..., None], arguments: tuple[str, ...], workers: int, resource: str, room: Any
) -> None:
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    amount = {"num_cpus": 1} if resource == "CPU" else {"num_cpus": 0, "num_gpus": 1}
    start = ray.remote(_Worker).options(scheduling_strategy=PlacementGroupSchedulingStrategy(room), **amount)
    group = [start.remote() for _ in range(workers)]
    failures: list[Exception] = []
    try:
        host, port = ray.get(group[0].meeting_point.remote())
        rendezvous = {"MASTER_ADDR": host, "MASTER_PORT": str(port), "WORLD_SIZE": str(workers)}
        waiting = [
            # Ray shows every worker its own device only: it is always number 0.
            worker.run.remote(function, arguments, {**rendezvous, "RANK": str(rank), "LOCAL_RANK": "0"})
            for rank, worker in enumerate(group)
        ]
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=GRACE_S if failures else None)
            if not ready:
                break
            try:
                ray.get(ready[0])
            except Exception as error:
                failures.append(error)
    except RayError as error:
        failures.append(error)
    finally:
        for worker in group:
            ray.kill(worker)
    lost = [error for error in failures if isinstance(error, RayError) and not isinstance(error, RayTaskError)]
    if lost:
        raise WorkersLost(f"a worker was lost: {str(lost[0]).strip().splitlines()[0]}")
    if failures:
        raise failures[0]


class _Worker:
    """One process of the group."""

    def meeting_point(self) -> tuple[str, int]:
        """Address of this node and a port that is free now."""
        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), int(probe.getsockname()[1])

    def run(self, function: Callable[..., None], arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        os.environ.update(environment)
        function(*arguments)
