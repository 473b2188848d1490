"""Quality, speed and memory of synapse detection; docs/detection.md has the last figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.figures import Figure
from bench.processes import part
from pipelines.unsupervised.detector import DEFAULT, METHODS, Method, Synapses, detect, scan
from tests.support import puncta
from tests.support.puncta import Puncta

NOMINAL = 1.0
BRIGHT = 2.0
"""Level at which 2018's detector finds synapses; in dimmer data it finds noise, and its loop over the objects takes
many times as long, which would flatter every other method."""
DEEP = {
    "offset 1,000": (1, 1000),
    "offset 20,000": (1, 20000),
    "a fifth": (0.2, 0),
    "times 200, offset 10,000": (200, 10000),
}
"""Factor and offset that turn nominal grey levels into 16-bit numbers."""
FRAMES = (10, 100)
"""Numbers of frames that are averaged, which leaves less noise."""
NOISE: list[dict[str, Any]] = [
    *({"kind": "poisson", "level": level, "uneven": uneven} for level in (0.3, 3, 30, 120) for uneven in (0, 0.5, 0.9)),
    *({"kind": "normal", "level": level, "uneven": uneven} for level in (10, 40, 90) for uneven in (0, 0.5)),
    *({"kind": "poisson", "level": level, "uneven": 0.5} for level in (0.01, 0.1)),
    *(
        {"kind": "poisson", "level": level, "uneven": uneven, "field": field, "dtype": "uint16"}
        for level in (250, 1000, 4000, 16000)
        for field, uneven in (("patches", 0.9), ("ramp", 0.8), ("vignette", 0.4), ("spot", 0.85))
    ),
    *(
        {"kind": "normal", "level": level, "spread": spread, "uneven": uneven, "field": field, "dtype": "uint16"}
        for level, spread in ((100, 0.05), (2000, 0.2), (10000, 0.03))
        for field, uneven in (("patches", 0), ("ramp", 0.5), ("vignette", 0.4), ("spot", 0.85))
    ),
    *(
        {"kind": "poisson", "level": level, "uneven": uneven, "field": field, "dtype": "uint16"}
        for level, fields in (
            (1000, (("small spot", 0.9), ("stripes", 0.9), ("tiles", 0.3))),
            (
                16000,
                (
                    *(("vignette", 0.67), ("vignette", 0.9), ("ramp", 1), ("far corner", 0.9), ("small spot", 0.9)),
                    *(("stripes", 0.1), ("stripes", 0.9), ("fine stripes", 0.5), ("tiles", 0.3)),
                ),
            ),
        )
        for field, uneven in fields
    ),
    *(
        {"kind": "normal", "level": 100, "spread": 0.05, "uneven": uneven, "field": field}
        for field, uneven in (("stripes", 0.3), ("tiles", 0.05), ("tiles", 0.3))
    ),
    *(
        {"kind": "poisson", "level": level, "uneven": uneven, "field": field, "dtype": "uint16"}
        for level, field, uneven in (
            *((300, "rim", 0.8), (3000, "rim", 0.8), (300, "bend", 0.9), (1500, "bend", 0.9), (15000, "bend", 0.9)),
            *((3000, "waves", 0.5), (20000, "waves", 0.5), (300, "last row", 0.3)),
        )
    ),
    {"kind": "normal", "level": 1000, "spread": 0.05, "uneven": 0.8, "field": "rim", "dtype": "uint16"},
    {"kind": "poisson", "level": 250, "uneven": 0.5, "field": "vignette"},
    *(
        {"kind": "poisson", "level": level, "uneven": 0.5, "gain": gain, "dtype": "uint16"}
        for level in (0.001, 0.01, 0.1)
        for gain in (5, 50)
    ),
    *(
        {"kind": "poisson", "level": level, "uneven": 0.5, "offset": 1000, "dead": True, "dtype": "uint16"}
        for level in (0.03, 0.3)
    ),
]
NOISE_SHAPE = (20, 1024, 1024)
SPEED = (((20, 512, 512), 30), ((20, 1024, 1024), 80))
"""Shapes (z, y, x), and how many times faster than the plain transcription `nomads2018` must be."""
SAME = [(20, 200, 200), (1, 300, 300), (5, 64, 640), (40, 90, 90), (16, 128, 129)]
TIMES = 7


def measure() -> Iterator[Figure]:
    """The figures of quality over the suite, noise, speed, and a gigavoxel."""
    yield from _quality()
    yield from _noise()
    yield from _speed()
    yield from _gigavoxel()


def _quality() -> Iterator[Figure]:
    for level in puncta.LEVELS:
        volumes = [puncta.puncta(seed, level=level) for seed in puncta.SEEDS]
        scores = {method: _score(volumes, method) for method in METHODS}
        best = max(f1 for _, _, f1 in scores.values())
        for method, (precision, recall, f1) in scores.items():
            name = f"detection, signal {level:g}, {method}"
            yield Figure(name=f"{name}, precision", value=precision, unit="of detections")
            yield Figure(name=f"{name}, recall", value=recall, unit="of synapses")
            least = max(best - 0.01, 0.95 if level == NOMINAL else 0)
            yield Figure(name=f"{name}, F1", value=f1, unit="", at_least=least if method == DEFAULT else None)
    nominal = [puncta.puncta(seed) for seed in puncta.SEEDS]
    others = {name: [_deep(seen, *how) for seen in nominal] for name, how in DEEP.items()}
    for frames in FRAMES:
        others[f"{frames} frames averaged"] = [
            _deep(puncta.puncta(seed, dtype="uint16", frames=frames), 1, 5000) for seed in puncta.SEEDS
        ]
    for name, volumes in others.items():
        for method in METHODS:
            _, _, f1 = _score(volumes, method)
            wanted = 0.95 if method == DEFAULT else None
            yield Figure(name=f"detection, nominal, {name}, {method}, F1", value=f1, unit="", at_least=wanted)


def _deep(seen: Puncta, gain: float, offset: float) -> Puncta:
    psd, synapsin = (
        np.clip(np.rint(v.astype(np.float32) * gain + offset), 0, 65535).astype(np.uint16)
        for v in (seen.psd, seen.synapsin)
    )
    return Puncta(psd, synapsin, seen.truth)


def _score(volumes: list[Puncta], method: Method) -> tuple[float, float, float]:
    """Precision, recall and F1 of all volumes together."""
    hits = detections = synapses = 0
    for seen in volumes:
        centres = _found(seen, method).centres
        hits += puncta.hit(centres, seen.truth)
        detections, synapses = detections + len(centres), synapses + len(seen.truth)
    return hits / max(1, detections), hits / synapses, 2 * hits / (detections + synapses)


def _found(seen: Puncta, method: Method) -> Synapses:
    depth, high, wide = seen.psd.shape
    return scan(
        lambda start, stop, top, bottom: (seen.psd[start:stop, top:bottom], seen.synapsin[start:stop, top:bottom]),
        (depth, high, wide),
        method=method,
    )


def _noise() -> Iterator[Figure]:
    """False detections, for each kind of noise: the goal is one in ten million voxels."""
    voxels = float(np.prod(NOISE_SHAPE))
    for how in NOISE:
        one, other = (puncta.noise(seed, shape=NOISE_SHAPE, **how) for seed in (1, 2))
        count = len(_found(Puncta(one, other, np.zeros((0, 3))), DEFAULT))
        yield Figure(
            name=_said(**how),
            value=count / voxels * 1e7,
            unit="detections in 10,000,000 voxels",
            at_most=1,
        )


def _said(
    *,
    kind: str,
    level: float,
    uneven: float,
    field: str = "patches",
    spread: float = 0.5,
    gain: float = 1,
    offset: float = 0,
    dead: bool = False,
    dtype: str = "uint8",
) -> str:
    of = f"{level:g} ± {level * spread:g}" if kind == "normal" else f"{level:g}"
    times = f" times {gain:g}" * (gain != 1) + f" on {offset:g}" * (offset != 0) + ", a dead voxel" * dead
    return f"detection, {kind} noise of {of}{times}, {dtype}, {f'{field} by {uneven:g}' if uneven else 'even'}"


def _speed() -> Iterator[Figure]:
    same = 0
    for seed in range(1, 11):
        seen = puncta.puncta(seed, level=BRIGHT, shape=SAME[seed % len(SAME)])
        same += np.array_equal(
            puncta.of_2018(seen.psd, seen.synapsin), detect(seen.psd, seen.synapsin, method="nomads2018")
        )
    yield Figure(name="detection, nomads2018, masks as in 2018", value=same, unit="of 10 volumes", at_least=10)
    for shape, goal in SPEED:
        seen = puncta.puncta(1, level=BRIGHT, shape=shape)
        name = f"on {'x'.join(map(str, shape))}"
        plain = _seconds(lambda seen=seen: puncta.of_2018(seen.psd, seen.synapsin))  # type: ignore[misc]
        rounds = [  # in turn, so that a busy moment affects all of them
            {m: _seconds(lambda m=m, seen=seen: detect(seen.psd, seen.synapsin, method=m)) for m in METHODS}  # type: ignore[misc]
            for _ in range(TIMES)
        ]
        taken = {method: statistics.median(seconds[method] for seconds in rounds) for method in METHODS}
        yield Figure(
            name=f"detection, nomads2018 {name}",
            value=1 / taken["nomads2018"],
            unit="volumes/s",
            floor=1 / plain,
            ratio_at_least=goal,
        )
        for method in METHODS:
            yield Figure(
                name=f"detection, {method} {name}",
                value=taken[method],
                unit="s",
                floor=taken["nomads2018"],
                ratio_at_most=3 if method == DEFAULT else None,
            )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _gigavoxel() -> Iterator[Figure]:
    with part("gigavoxel") as process:
        seen = process.ask()
    yield Figure(name="detection, a gigavoxel", value=seen["seconds"] * 1e9 / seen["voxels"], unit="s")
    most = min(12e9, 8 * seen["voxels"] + 300e6)
    yield Figure(name="detection, a gigavoxel, memory", value=seen["memory"] / 1e6, unit="MB", at_most=most / 1e6)
    yield Figure(
        name="detection, a gigavoxel, synapses",
        value=seen["synapses"],
        unit="",
        floor=seen["expected"],
        ratio_at_least=0.95,
        ratio_at_most=1.05,
    )
