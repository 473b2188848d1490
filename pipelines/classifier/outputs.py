"""Results in which every file names the model that gave the classes."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.common.csvs import Column
from pipelines.common.results import File, Results


class Outputs(Results):
    """As Results, and names the model in each file: a column in tables, a line in pictures, all descriptions."""

    def __init__(self, uri: str, *, model: str) -> None:
        super().__init__(uri)
        self._model = model
        self.columns = {"model": Column(of=lambda first, stop: np.zeros(stop - first, np.int64), words=(model,))}

    def add(self, name: str, content: bytes, *, title: str, about: str, media_type: str) -> bytes:
        """Add the model's name to a picture; write a file, announce it, and return the content written."""
        if media_type == "image/png":
            content = captioned(content, f"classes: {self._model}")
        return super().add(name, content, title=title, about=about, media_type=media_type)

    def announce(self, file: File) -> None:
        """Have results.json name a file, and the model with it."""
        super().announce(replace(file, about=f"{file.about} Classes: {self._model}."))


def captioned(picture: bytes, text: str) -> bytes:
    """The picture, a PNG, with a line of white text on black in its upper left corner."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    left, top, right, bottom = pen.textbbox((8, 6), text, font=font)
    pen.rectangle((left - 4, top - 3, right + 4, bottom + 3), fill=(0, 0, 0))
    pen.text((8, 6), text, font=font, fill=(255, 255, 255))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
