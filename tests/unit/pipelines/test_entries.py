"""The entries of the project's pipelines declare what their programs do."""

from __future__ import annotations

import pytest

from bot.domain.catalog import Catalog, Pipeline
from bot.settings import ROOT
from pipelines.classifier.driver import OPTIONS as CLASSIFIER
from pipelines.unsupervised import detector
from pipelines.unsupervised.driver import OPTIONS as UNSUPERVISED

TAKEN = {"nomads-classifier": CLASSIFIER, "nomads-unsupervised": UNSUPERVISED}
"""The arguments that each program takes of its own."""

each = pytest.mark.parametrize("pipeline", [*Catalog.read(ROOT / "pipelines")], ids=lambda pipeline: pipeline.name)


@each
def test_a_program_takes_the_options_that_its_entry_declares(pipeline: Pipeline) -> None:
    assert {f"--{option.name}" for option in pipeline.options} <= TAKEN[pipeline.name].keys()


@each
def test_every_method_is_offered_and_the_default_is_the_program_s(pipeline: Pipeline) -> None:
    (method,) = [option for option in pipeline.options if option.name == "method"]
    assert (method.choices, method.default) == (tuple(detector.METHODS), detector.DEFAULT)
