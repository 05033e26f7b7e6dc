"""`python toy_run.py WORKSPACE [stage=action ...]`: run the toy pipeline as the command line runs a real one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

from toy_config import Action, toy_plan

from flows.display import Display
from flows.run import leave, run


def main() -> None:
    """Print what was imported, so that a test can tell whether anything was started."""
    actions = dict(item.split("=") for item in sys.argv[2:])
    plan = toy_plan(Path(sys.argv[1]), cast(dict[str, Action], actions))
    try:
        summary: dict[str, Any] = run(plan, Display(len(plan.stages)))
        print("summary", [stage["name"] for stage in summary["stages"]])
    except Exception as error:
        print(type(error).__name__, error)
    print("imported", [name for name in ("prefect", "ray", "mlflow") if name in sys.modules])
    leave(0)


if __name__ == "__main__":
    main()
