"""HTML from templates, in which every value is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def template(path: Path) -> Template:
    """The Jinja2 template in that file, which may extend one of its folder; a name without a value is an error."""
    import jinja2  # a twentieth of a second, which most commands need not spend

    loader = jinja2.FileSystemLoader(path.parent)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(path.name)
