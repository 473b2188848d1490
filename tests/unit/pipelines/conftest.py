"""A unit test starts no process: sections are searched in the test's own."""

from __future__ import annotations

import pytest

from pipelines.unsupervised import alignment, search


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What several find is the same, as tests/integration/pipelines/test_copies.py shows."""
    for module in (search, alignment):
        monkeypatch.setattr(module, "CORES", 1)
