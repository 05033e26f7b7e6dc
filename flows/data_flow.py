"""A build of a data set as a flow: one Ray job, submitted, followed and repeated like the stages of the pipeline."""

from __future__ import annotations

import json
from typing import Any

from prefect import flow

from flows.data_run import BUILD
from flows.pipeline import stage


@flow(name="data-build", flow_run_name="{name}")
def data_build(name: str) -> dict[str, Any]:
    """Build the data set of the open session, and return what the command line prints of it."""
    result = stage.submit(BUILD).result()
    summary: dict[str, Any] = json.loads(result.output("summary").read_text())
    return summary
