"""The review of a request before it is accepted: of what was typed, and of what BOSS says of the data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from bot.application.addresses import Addresses
from bot.application.places import Places
from bot.application.ports import Compute, Volumes
from bot.domain import checks, words
from bot.domain.catalog import Catalog, Pipeline
from bot.domain.errors import InvalidRequest, Unavailable
from bot.domain.named import MARK, needs_no_token
from bot.domain.request import JobRequest, Reading, left_open, read
from bot.domain.volume import Box, Experiment, VolumesRefused, meant
from contract.masking import PUBLIC_TOKEN
from volumes.address import is_address

UNBOUNDED = "How large this {noun} is could not be learned in time: write start, stop, or submit again in a moment."
"""What stands under a range that was left empty, where the bounds are not known."""


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """A request without mistakes in what was typed, with the pipeline, box and token that it was reviewed with."""

    request: JobRequest
    pipeline: Pipeline
    box: Box
    token: SecretStr
    block: int | None = None
    """Voxels of a block, where the job goes in blocks."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What BOSS said of a reviewed request in time."""

    readable: bool
    """Whether BOSS has shown the experiment to this token."""
    checked: bool
    """Whether BOSS answered everything; if not, BOSS is asked again before the job is submitted."""
    size: int
    """Bytes the program reads; a channel of unknown data type counts one byte a voxel."""
    largest: int
    """Bytes the program may read: `size`, or WIDEST bytes a voxel and channel where a data type is unknown."""
    warnings: Sequence[str] = ()


class Reviewer:
    """Finds every mistake of a request at once."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        compute: Compute,
        volumes: Volumes,
        addresses: Addresses,
        sizes: checks.Sizes,
        predictions: str = "",
        places: Places | None = None,
    ) -> None:
        """`sizes` are the most that jobs may read, and `places` reads which volume is meant.

        `predictions` is where in BOSS programs write their detections to (`collection/experiment`); empty: nowhere.
        """
        self._catalog = catalog
        self._compute = compute
        self._volumes = volumes
        self._addresses = addresses
        self._sizes = sizes
        self.predictions = predictions
        self._places = places or Places()

    def first_choice(self) -> str:
        """The name of the pipeline with the fewest channels among those that can run here; empty where none can."""
        able = [p for p in self._catalog if not self._compute.refuses(image=p.image, command=p.command)]
        return min(able, key=lambda pipeline: pipeline.channels).name if able else ""

    def review(self, values: Mapping[str, Any], token: SecretStr, *, actor: str = "", within: float = 0) -> Reviewed:
        """Review what a person typed. Raises InvalidRequest with every mistake, by field, at once.

        `values` has JobRequest's fields; a mistake in an option is told by the option's name. A range that is left
        empty is all of the experiment: BOSS is asked for its bounds, for `within` seconds at most. So is it about the
        other fields where there are mistakes. Otherwise no service is asked, and a review takes well under a
        millisecond.
        """
        hidden: dict[str, str] = {}
        try:
            values = self._places.resolve(values, actor)
        except InvalidRequest as refusal:
            hidden = refusal.errors
        addressed = needs_no_token(str(values.get("collection") or "").strip())
        if addressed or not token.get_secret_value().strip():
            token = SecretStr(PUBLIC_TOKEN)  # of an address nobody is asked with a token, so none is kept for the job
        pipeline = self._catalog.get(str(values.get("pipeline") or "").strip())
        options, wrong = pipeline.read_options(values.get("options") or {}) if pipeline else ({}, {})
        values = {**values, "options": options}
        reading, opened = read(values), left_open(values)
        errors = {field: said for field, said in reading.errors.items() if field not in opened} | wrong | hidden
        if hidden:
            errors.pop("experiment", None)  # the form has no such field, and the volume is not described
        errors |= self._problems(values, errors, pipeline, token, addressed=addressed)
        shown: Experiment | None = None
        refused: dict[str, str] = {}
        if opened:
            shown, refused = self._shown(values, errors, token, within=within)
            reading, unbounded = _all_of(values, opened, shown, reading)
            asked = not refused and errors.keys().isdisjoint(("token", "collection", "experiment"))
            errors |= unbounded if asked else {}
        request, box = reading.request, reading.box
        large = {}
        if pipeline and box:
            read_at_least = checks.channels_read(pipeline, options)
            large = checks.too_large(pipeline, box, per_voxel=read_at_least, sizes=self._sizes, options=options)
        if errors or large or request is None or pipeline is None or box is None:
            if not opened:
                shown, refused = self._shown(values, errors, token, within=within)
            if shown:  # it knows better than `large`
                large = checks.against(reading.sides, pipeline, shown, options=options, sizes=self._sizes)
            raise InvalidRequest(_under(errors | refused | large, addressed=addressed))
        block = pipeline.block_for(box, options, usual=self._sizes.block)
        return Reviewed(request=request, pipeline=pipeline, box=box, token=token, block=block)

    def _problems(
        self,
        values: Mapping[str, Any],
        errors: Mapping[str, str],
        pipeline: Pipeline | None,
        token: SecretStr,
        *,
        addressed: bool,
    ) -> dict[str, str]:
        """What is wrong with token, mail address and pipeline, beyond these errors."""
        found: dict[str, str] = {}
        if problem := checks.token_problem(token.get_secret_value()):
            found["token"] = problem
        address = str(values.get("email") or "").strip()
        problem = self._addresses.missing(address) or self._addresses.outside(address)
        if "email" not in errors and problem:
            found["email"] = problem
        if "pipeline" not in errors and (problem := self._pipeline_problem(pipeline, addressed=addressed)):
            found["pipeline"] = problem
        return found

    def _shown(
        self, values: Mapping[str, Any], errors: Mapping[str, str], token: SecretStr, *, within: float
    ) -> tuple[Experiment | None, dict[str, str]]:
        """The experiment, and what BOSS refuses by field; BOSS is asked as far as token and names are right."""
        collection, experiment = (str(values.get(name) or "").strip() for name in ("collection", "experiment"))
        try:
            if "token" in errors or within <= 0:
                pass
            elif "collection" in errors and (is_address(collection) or collection.startswith(MARK)):
                pass  # there is no collection of BOSS's to ask for
            elif "collection" in errors:
                self._volumes.collections(token=token, within=within)
            elif "experiment" in errors:
                self._volumes.experiments(collection, token=token, within=within)
            else:
                return self._volumes.describe(collection, experiment, token=token, within=within), {}
        except VolumesRefused as refusal:
            said = meant(refusal, token)
            return None, {said.field: str(said)}
        except Unavailable:
            pass  # what BOSS does not say is said when the other mistakes are mended
        return None, {}

    def _pipeline_problem(self, pipeline: Pipeline | None, *, addressed: bool) -> str:
        if pipeline is None:
            there = words.listed([pipeline.name for pipeline in self._catalog])
            return f"There is no pipeline of that name; there is {there}."
        if addressed and pipeline.contract != "2":
            return f"{pipeline.name} reads volumes of BOSS alone, and none by address."
        return self._compute.refuses(image=pipeline.image, command=pipeline.command)

    def ask(self, reviewed: Reviewed, *, within: float) -> Answered:
        """What BOSS says of the request within `within` seconds. Raises InvalidRequest where BOSS shows mistakes.

        What BOSS does not tell in time stays unchecked.
        """
        until = time.monotonic() + within
        try:
            experiment = self._describe(reviewed, within=within)
        except Unavailable:
            experiment = None
        return self._answered(reviewed, experiment, until=until)

    def insist(self, reviewed: Reviewed, *, within: float) -> Answered:
        """As `ask`, but raises Unavailable where BOSS does not tell all that has to be checked."""
        experiment = self._describe(reviewed, within=within)
        return self._answered(reviewed, experiment, until=time.monotonic() + within, whole=True)

    def _describe(self, reviewed: Reviewed, *, within: float) -> Experiment:
        collection, experiment = reviewed.request.asked
        try:
            return self._volumes.describe(collection, experiment, token=reviewed.token, within=within)
        except VolumesRefused as refusal:
            said = meant(refusal, reviewed.token)
            raise InvalidRequest({said.field: str(said)}) from None

    def _answered(
        self, reviewed: Reviewed, experiment: Experiment | None, *, until: float, whole: bool = False
    ) -> Answered:
        pipeline, voxels, options = reviewed.pipeline, reviewed.box.voxels, reviewed.request.options
        if experiment and (
            errors := checks.against(reviewed.box.sides, pipeline, experiment, options=options, sizes=self._sizes)
        ):
            raise InvalidRequest(_under(errors, addressed=bool(reviewed.request.volume)))
        per_voxel, known = checks.bytes_per_voxel(pipeline, experiment, options)
        if whole and not known:
            raise Unavailable("BOSS did not tell the data types of all channels.")
        widest = per_voxel if known else checks.WIDEST * checks.channels_read(pipeline, options)
        return Answered(
            readable=experiment is not None,
            checked=experiment is not None and known,
            size=per_voxel * voxels,
            largest=widest * voxels,
            warnings=self._warnings(reviewed.token, within=until - time.monotonic())
            if experiment and not reviewed.request.volume
            else (),
        )

    def _warnings(self, token: SecretStr, *, within: float) -> list[str]:
        collection, _, experiment = self.predictions.partition("/")
        try:
            if collection and self._volumes.may_write(collection, experiment, token=token, within=within) is False:
                return [f"This token may not write to {self.predictions} in BOSS: detections will not be written back."]
        except VolumesRefused:
            pass  # BOSS took the token a moment ago; otherwise the program will say so
        return []


def _all_of(
    values: Mapping[str, Any], opened: Sequence[str], experiment: Experiment | None, reading: Reading
) -> tuple[Reading, dict[str, str]]:
    """The values with all of the experiment along the axes that were left open, and what is wrong with these axes."""
    if experiment is None:
        noun = "volume" if needs_no_token(str(values.get("collection") or "").strip()) else "experiment"
        return reading, dict.fromkeys(opened, UNBOUNDED.format(noun=noun))
    reading = read({**values, **{axis: experiment.whole(axis) for axis in opened}})
    return reading, {axis: reading.errors[axis] for axis in opened if axis in reading.errors}


def _under(errors: Mapping[str, str], *, addressed: bool) -> dict[str, str]:
    """Errors by field; what is wrong with a volume by address stands under the collection, where the address does."""
    return {"collection" if addressed and field == "experiment" else field: said for field, said in errors.items()}
