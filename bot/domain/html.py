"""HTML from templates, in which every value is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def template(path: Path) -> Template:
    """The Jinja2 template in that file; a name without a value is an error."""
    import jinja2  # a twentieth of a second, which most commands need not spend

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(path.read_text(encoding="utf-8"))
