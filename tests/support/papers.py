"""A volume's documents, in place of a bucket that has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from volumes.address import Location


@dataclass
class Papers:
    """Documents by their paths below `s3://lab/v`."""

    files: Mapping[str, Any]
    refused: bool = False
    asked: list[str] = field(default_factory=list)

    def read(self, place: Location) -> bytes | None:
        path = place.path.removeprefix("v/")
        self.asked.append(path)
        found = self.files.get(path)
        return found if found is None or isinstance(found, bytes) else json.dumps(found).encode()

    def names(self, folder: Location) -> list[str] | None:
        inside = [path for path in self.files if folder.path == "v" and "/" in path]
        return sorted({path.partition("/")[0] for path in inside})
