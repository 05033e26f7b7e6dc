"""What holds for the whole suite."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The smoke chain first: it is the longest, and the other worker does the rest meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_smoke_chain.py")
