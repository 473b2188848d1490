"""`make pictures` takes the screenshots that README and docs show."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]


def shown() -> set[str]:
    """The names of all pictures in README and docs."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    return {Path(name).name for page in pages for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text())}


def pixels(picture: NDArray[np.int16], *, bright: str) -> int:
    """How many pixels are bright in some of red, green and blue, such as `rb`, and dark in the others."""
    most = [(picture[..., number] > 130) == (name in bright) for number, name in enumerate("rgb")]
    return int(np.all(most, axis=0).sum())


def test_the_pictures_that_pages_show_are_taken_of_the_demo(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    make = ["make", "--no-print-directory", "--assume-old=.venv/.installed", "pictures", f"FOLDER={folder}"]
    done = subprocess.run(make, cwd=ROOT, check=True, capture_output=True, text=True)

    taken = {path.name: path for path in folder.iterdir()}
    assert set(taken) == {"viewer.png", "slices.png"}
    assert set(taken) <= shown()
    for name, path in taken.items():
        assert f"{path}: {path.stat().st_size:,} bytes" in done.stdout
        with Image.open(path) as picture, Image.open(ROOT / "docs" / name) as committed:
            assert (picture.format, picture.size) == ("PNG", committed.size)
            seen = np.asarray(picture.convert("RGB")).astype(np.int16)
        assert len(np.unique(seen.reshape(-1, 3), axis=0)) > 100
        assert pixels(seen, bright="rb") > 100, f"{name} shows a marker in magenta"
        assert pixels(seen, bright="g") > 100, f"{name} shows a marker in green"
        assert pixels(seen, bright="rg") > 1000, f"{name} shows circles in yellow"
