"""Quality, speed and memory of synapse detection; docs/detection.md has the last figures."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from bench.figures import Figure
from bench.processes import part
from bench.tissue import missing, table
from pipelines.unsupervised.detector import DEFAULT, METHODS, Method, detect
from tests.support import puncta, tissue
from tests.support.puncta import Puncta
from tests.support.tissue import found

BRIGHT = 2.0
"""Level at which 2018's detector finds synapses; in dimmer data it finds noise, and its loop over the objects takes
many times as long, which would flatter every other method."""
NOISE: list[dict[str, Any]] = [
    *({"kind": "poisson", "level": level} for level in (0.01, 0.1, 0.3, 3, 30, 120)),
    *({"kind": "poisson", "level": level, "dtype": "uint16"} for level in (1000, 16000)),
    *({"kind": "poisson", "level": level, "gain": 50, "dtype": "uint16"} for level in (0.01, 0.1, 3)),
    *({"kind": "poisson", "level": level, "offset": 1000, "dtype": "uint16"} for level in (0.1, 3)),
    *({"kind": "normal", "level": level} for level in (10, 40, 90)),
    *(
        {"kind": "normal", "level": level, "spread": spread, "dtype": "uint16"}
        for level, spread in ((100, 0.05), (10000, 0.03))
    ),
]
NOISE_SHAPE = (20, 1024, 1024)
SMALL, SMALLS = (20, 100, 100), 100
"""Boxes too small for a rate, and how many of them are looked at."""
SPEED = (((20, 512, 512), 30), ((20, 1024, 1024), 80))
"""Shapes (z, y, x), and how many times faster than the plain transcription `nomads2018` must be."""
SAME = [(20, 200, 200), (1, 300, 300), (5, 64, 640), (40, 90, 90), (16, 128, 129)]
TIMES = 7
PLAIN: dict[str, Any] = {"register": "off", "threshold": 0.75, "chance": False}
"""The default method without registration and chance."""


def measure() -> Iterator[Figure]:
    """The figures of real tissue, of drawn volumes, of noise, of speed, and of a gigavoxel."""
    yield from _tissue()
    yield from _drawn()
    yield from _noise()
    yield from _speed()
    yield from _gigavoxel()


def _tissue() -> Iterator[Figure]:
    if not tissue.there():
        print(missing())
        return
    print("", *table(), "", sep="\n")
    for name, goal in tissue.EXCESS.items():
        yield Figure(
            name=f"tissue, {name}, {DEFAULT}, beyond chance at a share of {tissue.SHARE:g}",
            value=tissue.judged(name).excess,
            unit="synapses",
            at_least=goal,
        )
    yield Figure(
        name=f"tissue, {tissue.MARKED}, {DEFAULT}, F1", value=tissue.f1_of_marked(), unit="", at_least=tissue.F1
    )


def _drawn() -> Iterator[Figure]:
    for shifted in (False, True):
        for level in puncta.LEVELS if not shifted else (1.0,):
            volumes = [puncta.puncta(seed, level=level, shifted=shifted) for seed in puncta.SEEDS]
            said = f"drawn, signal {level:g}{', shifted sections' * shifted}"
            for method in METHODS:
                precision, recall, f1 = _score(volumes, method)
                yield Figure(name=f"{said}, {method}, precision", value=precision, unit="of detections")
                yield Figure(name=f"{said}, {method}, recall", value=recall, unit="of synapses")
                goal = (0.93 if shifted else 0.95) if method == DEFAULT and level == 1 else None
                yield Figure(name=f"{said}, {method}, F1", value=f1, unit="", at_least=goal)


def _score(volumes: list[Puncta], method: Method) -> tuple[float, float, float]:
    """Precision, recall and F1 of all volumes together."""
    hits = detections = synapses = 0
    for seen in volumes:
        centres = found(seen.psd, seen.synapsin, method=method, chance=False).centres
        hits += puncta.hit(centres, seen.truth)
        detections, synapses = detections + len(centres), synapses + len(seen.truth)
    return hits / max(1, detections), hits / synapses, 2 * hits / (detections + synapses)


def _noise() -> Iterator[Figure]:
    """False detections, for each kind of noise: one in a million voxels at most, and told as nothing beyond chance."""
    nothing = 0
    for how in NOISE:
        seen = found(*(puncta.noise(seed, shape=NOISE_SHAPE, **how) for seed in (1, 2)))
        count = len(seen)
        nothing += seen.threshold == math.inf and seen.curve[:, 3].min(initial=1) == 1
        small = sum(
            len(found(*(puncta.noise(2 * n + seed, shape=SMALL, **how) for seed in (3, 4)))) for n in range(SMALLS)
        )
        for said, number, voxels in (
            ("", count, np.prod(NOISE_SHAPE)),
            (" in small boxes", small, SMALLS * np.prod(SMALL)),
        ):
            yield Figure(
                name=f"noise, {_said(**how)}{said}",
                value=number / float(voxels) * 1e6,
                unit="detections in 1,000,000 voxels",
                at_most=1,
            )
    yield Figure(
        name="noise, told as nothing beyond chance", value=nothing, unit=f"of {len(NOISE)} kinds", at_least=len(NOISE)
    )


def _said(
    *, kind: str, level: float, spread: float = 0.5, gain: float = 1, offset: float = 0, dtype: str = "uint8"
) -> str:
    of = f"{level:g} ± {level * spread:g}" if kind == "normal" else f"{level:g}"
    return f"{kind} of {of}{f' times {gain:g}' * (gain != 1)}{f' on {offset:g}' * (offset != 0)}, {dtype}"


def _speed() -> Iterator[Figure]:
    same = 0
    for seed in range(1, 11):
        seen = puncta.puncta(seed, level=BRIGHT, shape=SAME[seed % len(SAME)])
        same += np.array_equal(
            puncta.of_2018(seen.psd, seen.synapsin), detect(seen.psd, seen.synapsin, method="nomads2018")
        )
    yield Figure(name="speed, nomads2018, masks as in 2018", value=same, unit="of 10 volumes", at_least=10)
    for shape, goal in SPEED:
        seen = puncta.puncta(1, level=BRIGHT, shape=shape)
        name = f"on {'x'.join(map(str, shape))}"
        plain = _seconds(partial(puncta.of_2018, seen.psd, seen.synapsin))
        ways: dict[str, dict[str, Any]] = {
            "nomads2018": {"method": "nomads2018", "chance": False},
            "probabilistic": {"method": "probabilistic", "chance": False},
            f"{DEFAULT} without registration and chance": PLAIN,
            DEFAULT: {},
        }
        # in turn, so that a busy moment affects all of them
        rounds = [
            {way: _seconds(partial(found, seen.psd, seen.synapsin, **how)) for way, how in ways.items()}
            for _ in range(TIMES)
        ]
        taken = {way: statistics.median(seconds[way] for seconds in rounds) for way in ways}
        yield Figure(
            name=f"speed, nomads2018 {name}",
            value=1 / taken["nomads2018"],
            unit="volumes/s",
            floor=1 / plain,
            ratio_at_least=goal,
        )
        goals = {DEFAULT: 4.0, f"{DEFAULT} without registration and chance": 2.5}
        for way in ways:
            yield Figure(
                name=f"speed, {way} {name}",
                value=taken[way],
                unit="s",
                floor=taken["nomads2018"],
                ratio_at_most=goals.get(way),
            )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _gigavoxel() -> Iterator[Figure]:
    with part("gigavoxel") as process:
        seen = process.ask()
    yield Figure(
        name="speed, a gigavoxel of two uint8 channels",
        value=seen["seconds"] * 1e9 / seen["voxels"],
        unit="s",
        at_most=25,
    )
    most = min(12e9, 8 * seen["voxels"] + 300e6)
    yield Figure(name="speed, a gigavoxel, memory", value=seen["memory"] / 1e6, unit="MB", at_most=most / 1e6)
    yield Figure(
        name="speed, a gigavoxel, synapses",
        value=seen["synapses"],
        unit="",
        floor=seen["expected"],
        ratio_at_least=0.9,
        ratio_at_most=1.1,
    )
