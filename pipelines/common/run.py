"""One run of a program: its request and channels, and the files that it writes.

    def program(request: Request) -> None:
        with Run(request, entry=Path(__file__).with_name("pipeline.toml")) as run:
            psd = run.channels["postsynaptic"].read()
            run.progress(0.7, "detecting")
            ...
            run.finish(Found(labels=labels, centres=centres, voxels=voxels, scores=scores))

docs/results.md describes the files. The same request gives the same bytes: files hold neither times of day nor
durations; the duration of each phase is printed on stdout.
"""

from __future__ import annotations

import hashlib
import math
import sys
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from contract.channels import candidates
from contract.names import MAX_NAME, results_key
from contract.program import BLOCK_VOXELS, MAX_NOTE
from pipelines.common import csvs, layers, parquets, preview, report, scene, viewer
from pipelines.common.boxes import Box, said, shape, union, voxels
from pipelines.common.channels import Channel, Plane, brightness, digest_of
from pipelines.common.copies import CORES, beside
from pipelines.common.crate import crate
from pipelines.common.csvs import Column
from pipelines.common.gathered import Gathered
from pipelines.common.notes import Note, in_short, of_channels
from pipelines.common.npz import Slabs, npz
from pipelines.common.precomputed import Frame
from pipelines.common.program import Failure, Progress, Request, Stopwatch
from pipelines.common.results import Done, File, Results
from pipelines.common.source import Source
from pipelines.common.sparse import Sparse, filled, slabs
from pipelines.common.volume import Volume
from pipelines.common.words import counted, fitting, joined

Array = NDArray[Any]

COLUMNS = ("id", "z", "y", "x", "z_nm", "y_nm", "x_nm", "voxels", "volume_um3", "score", "class")
"""Of synapses.csv; the columns of `Found` and a mean brightness of each channel follow."""
PACKAGES = ("intern", "tensorstore", "numpy", "scipy", "connected-components-3d", "pillow", "pyarrow")
"""Packages whose versions results.json names."""
MOST, WRITTEN = 2**31, 2**30
"""Voxels of a box whose detections are written as one array, and back to BOSS, at most: that takes memory for them."""
PREDICTIONS = "predictions.npz"
ORDER = ("synapses.csv", "synapses.parquet", PREDICTIONS, "segmentation", "annotations", "image", "preview.png")
"""In which results name files; others follow."""
MANY = 10**6
"""Synapses whose rows are worth two processes, and a Parquet file."""
CIRCLE_NM = 300
"""Radius of the circles in the preview."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found in the box: n objects, numbered from 1 in `labels`; row i of the other arrays is object i + 1."""

    labels: Array | Sparse
    """(z, y, x), unsigned integers: an object's number in its voxels, 0 elsewhere."""
    centres: NDArray[np.float64]
    """(n, 3): z, y, x in voxels from the box's corner."""
    voxels: NDArray[np.int64]
    """(n,): each object's number of voxels."""
    scores: NDArray[np.float64]
    """(n,): how sure the method is; the pipeline defines the number."""
    kinds: Sequence[str] = ("synapse",)
    """The classes, in the order in which they are shown."""
    kind: NDArray[np.int64] | None = None
    """(n,): each object's class, as an index into `kinds`; None: all are of the first class."""
    nothing: str = "Nothing in this box stands out as a synapse."
    """What is said where nothing was found."""
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Further columns of synapses.csv, (n,) each; what is not a number is left empty."""
    numbers: Sequence[tuple[str, str]] = ()
    """Further labels and values for the head of the report."""
    sections: Sequence[report.Section] = ()
    """Further sections of the report."""
    told: Mapping[str, object] = field(default_factory=dict)
    """Further fields of results.json."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Parameters, such as the method, shown under “How this was made”."""
    lies: Mapping[str, Mapping[int, Plane]] = field(default_factory=dict)
    """Role to how sections of its channel are shifted; brightness is measured where they really lie."""

    def __len__(self) -> int:
        return len(self.voxels)


class Run:
    """A request whose experiment, box and channels are right, and whose results can be written.

    Construction raises WrongRequest, BossFailure or Failure otherwise, before a voxel is read. `roles` are those of
    pipeline.toml unless given; `near` is asked, with all roles, for the box to read of each whose channel is read
    beyond the request's box, within the experiment's bounds; parts of what is `aside` can be read once. `witnesses` are
    channels that are read beside those of the roles. `gathered` gives channels that others have read. A context
    manager, which discards the channels' voxels at its end.
    """

    def __init__(
        self,
        request: Request,
        *,
        entry: Path,
        roles: Mapping[str, Sequence[str]] | None = None,
        near: Callable[[Volume, Collection[str]], Mapping[str, Box]] = lambda volume, roles: {},
        witnesses: Sequence[str] = (),
        aside: Callable[[Volume], Box | None] = lambda volume: None,
        gathered: Callable[[Source], Mapping[str, Channel]] | None = None,
        results: Callable[[str], Results] = Results,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self.request = request
        self.entry: dict[str, Any] = tomllib.loads(entry.read_text(encoding="utf-8"))
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._say, self._watch, self._phase = Progress(out=self._out), Stopwatch(), "starting"
        self.progress(0, "starting")
        self.results = results(request.results_uri)
        self._roles = roles or self.entry.get("roles", {})
        source = Source(request, roles=self._roles, witnesses=witnesses)
        self._boss, self.volume, self.names = source.boss, source.volume, source.names
        self._read = 0
        self.channels: dict[str, Channel]
        """Role to channel, with voxels (z, y, x)."""
        if gathered:
            self.channels = dict(gathered(source))
        else:
            around, beside = near(self.volume, self.names), aside(self.volume)
            self.channels = source.channels(around, box=self.box, aside=beside, told=self._told)
        self._voxels = sum(voxels(channel.near) for channel in self.channels.values())
        self._held = ExitStack()
        self._digests: Callable[[], list[str]] | None = None
        """Waits for the checksums of all that was read, if they are being made."""
        self._notes: list[Note] = []
        self._warnings: list[Note] = []

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()
        if error:
            self.results.tidy()
        for channel in self.channels.values():
            channel.close()

    @property
    def box(self) -> Box:
        """The request's, in the experiment's voxels, (z, y, x)."""
        return self.request.z, self.request.y, self.request.x

    @property
    def near(self) -> Box:
        """The box that holds all that is read, of whichever channel."""
        return reduce(union, (channel.near for channel in self.channels.values()), self.box)

    @property
    def key(self) -> str:
        """The results key, by which the bot names this pipeline on this box."""
        asked = self.request
        return asked.results_key or results_key(
            self.entry["name"], asked.collection, asked.experiment, z=asked.z, y=asked.y, x=asked.x
        )

    def progress(self, part: float, phase: str) -> None:
        """Tell that `part` of the work is done, from 0 to 1; `phase`, one or two words, begins or goes on."""
        if phase != self._phase:
            self._watch.lap(self._phase)
            self._phase = phase
        self._say(part, phase)

    def _told(self, voxels: int) -> None:
        self._read += voxels
        part = self._read / self._voxels
        phase = self._phase
        self.progress(0.05 + 0.6 * part, "reading")
        if phase != "reading" and part == 1:
            self.progress(0.65, phase)

    def channel(self, name: str) -> Channel:
        """The channel of that name, which has a role or is a witness."""
        return next(channel for channel in self.channels.values() if channel.name == name)

    def fetch(self) -> None:
        """Read every channel from BOSS before anything is computed, since BOSS may fail half way."""
        for channel in self.channels.values():
            channel.fetch()
        channels = [channel for channel in self.channels.values() if not isinstance(channel, Gathered)]
        if channels and not self._digests and self._voxels > BLOCK_VOXELS:
            later = beside(lambda: [digest_of(each.part(each.near)) for each in channels], copies=CORES, idle=True)
            self._digests = self._held.enter_context(later)

    def note(self, said: str | Note) -> None:
        """Show a sentence with the results."""
        self._notes.append(Note(text=said) if isinstance(said, str) else said)

    def warn(self, said: str | Note) -> None:
        """Show a sentence about something odd with the results, before the notes, and on stderr at the end."""
        self._warnings.append(Note(text=said) if isinstance(said, str) else said)

    @property
    def notes(self) -> list[Note]:
        """All notes so far, the weightiest first."""
        first = [note for note in self._notes if note.first]
        return [*first, *self._warnings, *(note for note in self._notes if not note.first)]

    def finish(self, found: Found, *, facts: Mapping[str, str] | None = None) -> None:
        """Write all files, results.json last. `facts` are further ones, beside those of what was found."""
        facts = {**found.facts, **(facts or {})}
        self.progress(0.7, "measuring")
        bright = self._brightnesses(found)
        self._look(found)

        self.progress(0.75, "writing")
        picture = self._detections(found, self._table(found, bright))
        self._images()
        written = self._write_back(found)
        link = viewer.link(
            self.request, channels=list(self.names.values()), voxel_nm=self.volume.voxel_nm, detections=written
        )
        self.progress(0.98, "writing")
        versions = {"pipeline": str(self.entry.get("version", ""))} | {name: version(name) for name in PACKAGES}
        page = self._page(found, bright, picture, facts, written, versions)
        self.results.add(
            "report.html",
            report.render(page),
            title="Report",
            about="Density, sizes, scores, and brightness by channel, as a page.",
            media_type="text/html; charset=utf-8",
        )
        self.results.files.sort(key=_place)
        self.results.finish(
            {
                "contract": "1",
                "pipeline": self.entry["name"],
                "request": self.request.public(),
                "channels": self.names,
                "counts": self._counts(found),
                "density_per_um3": round(len(found) / self.cubic_um, 6),
                "preview": "preview.png",
                "viewer": link,
                "view": scene.view(found.centres, self.channels, self.frame),
                "written_back": written,
                "notes": in_short(self.notes),
                "facts": facts,
                **found.told,
                "versions": versions,
            },
            crate=lambda written: crate(
                self.request,
                entry=self.entry,
                channels=self.channels,
                digests=self._checksums(),
                versions=versions,
                files=self.results.files,
                written=written,
            ),
        )
        self._watch.lap(self._phase)
        took = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in self._watch.seconds.items())
        line = f"{counted(len(found), 'synapse')} in {counted(math.prod(self.request.shape), 'voxel')}; {took}"
        print(line, file=self._out, flush=True)
        for warning in self._warnings:
            print(warning.text, file=self._err, flush=True)

    def _brightnesses(self, found: Found) -> dict[str, NDArray[np.float64]]:
        """Role to the mean values of its channel in the objects."""
        known = {role: channel.means for role, channel in self.channels.items() if isinstance(channel, Gathered)}
        if known:
            return known
        self.fetch()  # what a copy reads of a volume would be lost with it
        if isinstance(found.labels, Sparse):
            found.labels.settle()
        parts = [channel.part(self.box, found.lies.get(role)) for role, channel in self.channels.items()]
        copies = CORES if found.labels.size > BLOCK_VOXELS else 1
        return dict(zip(self.channels, brightness(parts, found.labels, len(found), copies=copies), strict=True))

    def _checksums(self) -> dict[str, str]:
        """Role to the checksum of what was read of its channel."""
        known = self._digests() if self._digests else [""] * len(self.channels)
        return {role: channel.digest(own) for (role, channel), own in zip(self.channels.items(), known, strict=True)}

    def _detections(self, found: Found, table: Mapping[str, Column]) -> bytes:
        """Write all that shows the synapses but the report, and return the preview.

        Of a large box, what takes one process each is made beside the segmentation, which takes two.
        """
        copies, many = CORES if found.labels.size > BLOCK_VOXELS else 1, len(found) > MANY

        def seen() -> tuple[bytes, Done]:
            own = self.results.apart()
            if many:
                self._columns(own, table, len(found))
            else:
                self._rows(own, table, len(found))
            about, picture = f"{self._picture_said(found).capitalize()}.", self._preview(found)
            own.add("preview.png", picture, title="Preview", about=about, media_type="image/png")
            return picture, own.done

        def marked() -> Done:
            own = self.results.apart()
            if found.labels.size <= MOST:
                detections = Slabs(found.labels.shape, np.dtype(np.uint8), slabs(found.labels, _detected))
                where = {"start": np.array(self.request.start), "voxel_nm": np.array(self.volume.voxel_nm)}
                own.add(
                    PREDICTIONS,
                    npz({"predictions": detections, **where}, level=2, runs=True),
                    title="Predictions",
                    about="255 where a synapse is, else 0; axes z, y, x.",
                    media_type="application/x-npz",
                )
            layers.write_centres(own, found, _kind(found), self.frame)
            return own.done

        if many:
            self._rows(self.results, table, len(found), copies=CORES)
        with beside(marked, copies=copies) as further, beside(seen, copies=copies) as first:
            layers.write_voxels(self.results, found, self.frame)
            picture, done = first()
            self.results.join(done)
            self.results.join(further())
        return picture

    def _rows(self, results: Results, table: Mapping[str, Column], count: int, *, copies: int = 1) -> None:
        """Write the rows of the table."""
        results.stream(
            "synapses.csv",
            csvs.rows(table, count, copies=copies),
            title="Synapses (CSV)",
            about="A row for each synapse: centre in voxels and nm, volume, score, class.",
            media_type="text/csv",
        )

    def _columns(self, results: Results, table: Mapping[str, Column], count: int) -> None:
        """Write the rows of a large table in a second format."""
        results.stream(
            "synapses.parquet",
            parquets.pieces(table, count),
            title="Synapses (Parquet)",
            about="The rows of synapses.csv, for programs that read columns.",
            media_type="application/vnd.apache.parquet",
        )

    def _images(self) -> None:
        """Write the channels as Neuroglancer shows them, unless they are larger than was asked for."""
        size, most = layers.image_size(list(self.channels.values())), self.request.image_bytes
        if size <= most:
            layers.write_images(self.results, self.channels, self.frame)
        elif most:
            self.note(f"There is no image/ among the results: the channels have {size:,} bytes, more than {most:,}.")

    @property
    def frame(self) -> Frame:
        """Where the box lies."""
        return Frame(start=self.request.start, shape=self.request.shape, voxel_nm=self.volume.voxel_nm)

    @property
    def cubic_um(self) -> float:
        """The box's volume in cubic micrometres."""
        return math.prod(self.request.shape) * math.prod(self.volume.voxel_nm) / 1e9

    def _look(self, found: Found) -> None:
        """Add notes and warnings about the data and the objects found."""
        roles = [f"{role} {name}" for role, name in self.names.items()]
        brief = fitting(lambda count: f"Channels by role: {joined(roles, count)}.", len(roles), MAX_NOTE)
        self._notes.insert(0, Note(text=f"Channels by role: {', '.join(roles)}.", brief=brief))
        for role, name in self.names.items():
            if role not in self._roles:
                continue
            alias = next((part for part in self._roles[role] if part in name.lower()), "")
            others = [other for other in candidates([alias], self.volume.channels) if alias and other != name]
            if others and role not in self.request.channels:
                self.note(f"{', '.join(others[:5])} could be {role} too; --channel {role}={others[0]} would take it.")
        if len(found):
            self.note(f"Density: {len(found) / self.cubic_um:.3g} per µm³ in {self.cubic_um:,.4g} µm³.")
        else:
            self.note(found.nothing)
        if found.labels.size > MOST:
            self.note(f"There is no predictions.npz among the results: {_too_many(MOST)}.")
        if len(found) > preview.MAX_MARKS:
            self.note(f"The preview marks {preview.MAX_MARKS:,} of the {len(found):,} synapses.")
        for fault in of_channels(list(self.channels.values())):
            self.warn(fault)
        if shape(self.near)[0] == 1:
            self.warn("The box is one section thick: synapses that lie mostly in another section are missed.")

    def _counts(self, found: Found) -> dict[str, int]:
        counts = {"synapses": len(found)}
        if len(found.kinds) > 1:
            counts |= dict(zip(found.kinds, map(int, _by_kind(found)), strict=True))
        return counts | {"voxels in synapses": int(found.voxels.sum())}

    def _table(self, found: Found, bright: Mapping[str, NDArray[np.float64]]) -> dict[str, Column]:
        """A row for each synapse, under COLUMNS, those of what was found, and the channels' mean values."""
        start, voxel_nm = np.array(self.request.start), np.array(self.volume.voxel_nm)
        kind = _kind(found)

        def place(axis: int) -> Callable[[int, int], Array]:
            return lambda first, stop: found.centres[first:stop, axis] + start[axis]

        def in_nm(axis: int) -> Callable[[int, int], Array]:
            return lambda first, stop: place(axis)(first, stop) * voxel_nm[axis]

        def part(values: Array) -> Callable[[int, int], Array]:
            return lambda first, stop: values[first:stop]

        columns = [
            Column(of=lambda first, stop: np.arange(first + 1, stop + 1)),
            *(Column(of=place(axis), decimals=2) for axis in range(3)),
            *(Column(of=in_nm(axis), decimals=2) for axis in range(3)),
            Column(of=part(found.voxels)),
            Column(of=lambda first, stop: found.voxels[first:stop] * voxel_nm.prod() / 1e9, decimals=6),
            Column(of=part(found.scores), decimals=4),
            Column(of=part(kind), words=found.kinds),
        ]
        named = dict(zip(COLUMNS, columns, strict=True))
        named |= {name: Column(of=part(values), decimals=4) for name, values in found.columns.items()}
        named |= {f"mean_{self.names[role]}": Column(of=part(means), decimals=2) for role, means in bright.items()}
        return {**named, **self.results.columns}

    def _shown(self) -> tuple[str, str]:
        """The roles that the preview shows, in magenta and in green."""
        roles = list(self.channels)
        magenta = "postsynaptic" if "postsynaptic" in roles else roles[0]
        return magenta, "presynaptic" if "presynaptic" in roles else next((r for r in roles if r != magenta), magenta)

    def _preview(self, found: Found) -> bytes:
        magenta, green = self._shown()
        return preview.draw(
            self.channels[magenta].projection,
            self.channels[green].projection,
            shape=self.request.shape[1:],
            centres=found.centres,
            radius=max(4.0, CIRCLE_NM / self.volume.voxel_nm[2]),
            voxel_nm=self.volume.voxel_nm,
            kinds=[int(k) for k in _kind(found)[: preview.MAX_MARKS]],
        )

    def _picture_said(self, found: Found) -> str:
        magenta, green = (self.names[role] for role in self._shown())
        return f"the brightest of each voxel column, {magenta} magenta, {green} green, a circle round each synapse"

    def _write_back(self, found: Found) -> str | None:
        """Write detections back to BOSS; returns `collection/experiment/channel`, or None (a note says why)."""
        if not self.request.predictions or self._boss is None:
            return None
        where, name = "/".join(self.request.predictions), channel_name(self.key)
        if found.labels.size > WRITTEN:
            self.note(f"The detections were not written back to {where} in BOSS: {_too_many(WRITTEN)}.")
            return None
        try:
            self._boss.write(
                self.request.predictions,
                name,
                filled(found.labels, _detected, np.uint8),
                told=lambda part: self.progress(0.8 + 0.18 * part, "writing to BOSS"),
            )
        except Failure as failure:
            self.note(f"The detections were not written back to {where} in BOSS: {failure}")
            return None
        return f"{where}/{name}"

    def _page(
        self,
        found: Found,
        bright: Mapping[str, NDArray[np.float64]],
        picture: bytes,
        facts: Mapping[str, str],
        written: str | None,
        versions: Mapping[str, str],
    ) -> report.Page:
        request, nm = self.request, self.volume.voxel_nm
        box = said(self.box)
        cubic = found.voxels * math.prod(nm) / 1e9
        numbers = [
            ("Synapses", f"{len(found):,}"),
            ("Per cubic micrometre", f"{len(found) / self.cubic_um:.3g}"),
            ("Volume of the box", f"{self.cubic_um:,.4g} µm³"),
            *found.numbers,
        ]
        if len(found):
            numbers.append(("Median synapse", f"{np.median(cubic):.3g} µm³"))
            numbers.append(("Share of the volume", f"{found.voxels.sum() / found.labels.size:.2%}"))
        made = {
            "Pipeline": f"{self.entry['name']} {versions['pipeline']}",
            **({} if request.address else {"BOSS": f"{request.protocol}://{request.host}"}),
            "Volume": request.place,
            "Box (voxels)": box,
            **({} if self.near == self.box else {"Read around it (voxels)": said(self.near)}),
            "Voxel (x, y, z)": f"{nm[2]:g} × {nm[1]:g} × {nm[0]:g} nm",
            **{f"Channel: {role}": name for role, name in self.names.items()},
            **facts,
            "Detections in BOSS": written or "not written back",
            "Versions": ", ".join(f"{name} {number}" for name, number in versions.items() if name != "pipeline"),
        }
        kinds = found.kinds if len(found.kinds) > 1 else ("synapse",)
        magenta, green = (self.names[role] for role in self._shown())
        key = [((255, 0, 255), magenta), ((0, 200, 0), green)]
        key += [(preview.COLOURS[i % len(preview.COLOURS)], kind) for i, kind in enumerate(kinds)]
        return report.Page(
            title=f"Synapses in {request.place}",
            about=f"{self.entry.get('title', self.entry['name'])}. Box: {box}.",
            numbers=numbers,
            notes=[note.text for note in self.notes],
            picture=picture,
            picture_said=f"The box from above: {self._picture_said(found)}.",
            key=key,
            sections=[self._synapses(found, cubic), *found.sections, self._brightness(bright)],
            facts=made,
        )

    def _synapses(self, found: Found, cubic: Array) -> report.Section:
        parts: list[report.Chart | report.Table] = []
        if len(found.kinds) > 1:
            kind, counts = _kind(found), _by_kind(found)
            parts.append(
                report.Table(
                    title="By class",
                    header=("Class", "Count", "Share", "Per µm³", "Median µm³"),
                    rows=[
                        (
                            name,
                            f"{counts[i]:,}",
                            f"{counts[i] / max(1, len(found)):.1%}",
                            f"{counts[i] / self.cubic_um:.3g}",
                            f"{np.median(cubic[kind == i]):.3g}" if counts[i] else "–",
                        )
                        for i, name in enumerate(found.kinds)
                    ],
                )
            )
        first, depth = self.request.z[0], self.request.shape[0]
        sections = np.clip(np.rint(found.centres[:, 0]).astype(np.int64), 0, depth - 1)
        edges = np.linspace(first, first + depth, min(report.BINS, depth) + 1)
        per_bin = np.histogram(sections + first + 0.5, edges)[0] / np.diff(edges)
        parts += [
            report.histogram(cubic, title="Size", across="volume in µm³", up="synapses", unit=" µm³"),
            report.histogram(found.scores, title="Score", across="score", up="synapses"),
            report.Chart(
                title="Along z",
                across="section (z)",
                up="synapses per section",
                edges=edges,
                series=[report.Series(label="synapses per section", values=per_bin)],
                said=f"On average {len(found) / depth:.3g} synapses have their centre in a section.",
            ),
        ]
        return report.Section(title="Synapses", parts=parts)

    def _brightness(self, bright: Mapping[str, NDArray[np.float64]]) -> report.Section:
        """The section about each channel's values, in all voxels and in synapses, and their correlations."""
        rows, charts = [], []
        for role, channel in self.channels.items():
            sample, inside = channel.sample.astype(np.float64), bright[role]
            mean = float(sample.mean())
            rows.append(
                (
                    channel.name,
                    role,
                    *(f"{v:,.6g}" for v in (channel.lowest, np.median(sample), round(mean, 2), channel.highest)),
                    f"{inside.mean():,.4g}" if inside.size else "–",
                    f"{inside.mean() / mean:.2f}" if inside.size and mean else "–",
                )
            )
            top = max(float(np.percentile(sample, 99.9)), float(inside.max(initial=0)))
            edges = report.whole_bins(channel.lowest, top)
            charts.append(
                report.Chart(
                    title=channel.name,
                    across="brightness",
                    up="per cent",
                    edges=edges,
                    series=[
                        report.Series(label=label, values=_shares(values, edges))
                        for label, values in (("% of all voxels", sample), ("% of synapses, by their mean", inside))
                    ],
                    said=f"{role}: {mean:.4g} on average in all voxels"
                    + (f", {inside.mean():.4g} in synapses." if inside.size else "."),
                )
            )
        parts: list[report.Chart | report.Table] = [
            report.Table(
                title="Values by channel",
                header=("Channel", "Role", "Least", "Median", "Mean", "Greatest", "Mean in synapses", "Ratio"),
                rows=rows,
            )
        ]
        names = [channel.name for channel in self.channels.values()]
        if len(names) > 1 and len(next(iter(bright.values()))) > 2:
            shades = _correlations(np.stack(list(bright.values())))
            parts.append(
                report.Table(
                    title="Correlation between channels, over the synapses' mean values",
                    header=("", *names),
                    rows=[(name, *(f"{r:.2f}" for r in row)) for name, row in zip(names, shades, strict=True)],
                    shades=shades.tolist(),
                )
            )
        text = "Median, mean and curves of all voxels are those of a regular sample of the box."
        return report.Section(title="Brightness by channel", text=text, parts=[*parts, *charts])


def _place(file: File) -> int:
    """Where results name a file, whatever was written first."""
    part = file.name.partition("/")[0]
    return ORDER.index(part) if part in ORDER else len(ORDER)


def channel_name(key: str) -> str:
    """The results key as a name that BOSS takes; one that is too long is cut and ends in a hash of the whole."""
    if len(key) <= MAX_NAME:
        return key
    return f"{key[: MAX_NAME - 17]}_{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _too_many(voxels: int) -> str:
    return f"of a box of more than {voxels:,} voxels, segmentation/ alone has the voxels of synapses"


def _detected(labels: Array) -> NDArray[np.uint8]:
    """255 for each label but 0."""
    lit: NDArray[np.uint8] = np.negative((labels != 0).view(np.uint8))
    return lit


def _kind(found: Found) -> NDArray[np.int64]:
    if found.kind is None:
        return np.broadcast_to(np.zeros(1, np.int64), len(found))  # which takes no memory
    return found.kind


def _by_kind(found: Found) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = np.bincount(_kind(found), minlength=len(found.kinds))
    return counts


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per cent of the values in each bin; values beyond the last edge count to the last bin."""
    counts = np.histogram(np.minimum(values, edges[-1]), edges)[0]
    shares: NDArray[np.float64] = counts * 100 / max(1, len(values))
    return shares


def _correlations(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's r of each two rows, (rows, rows); 0 where a row is constant."""
    spread = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(spread, axis=1)
    norm[norm < 1e-9 * max(1, rows.max(initial=0), -rows.min(initial=0))] = np.inf
    spread /= norm[:, None]
    found: NDArray[np.float64] = spread @ spread.T
    return np.round(found, 4) + 0.0  # no minus zero
