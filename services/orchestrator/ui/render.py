"""Parts of the page from the templates in ``html/``. All values are escaped."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_FOLDER = Path(__file__).parent
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(_FOLDER / "html"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def html(name: str, **values: Any) -> str:
    return _ENVIRONMENT.get_template(f"{name}.html").render(values)


def asset(name: str) -> str:
    """The text of a script or style of the page."""
    return (_FOLDER / "assets" / name).read_text(encoding="utf-8")


def picture(name: str) -> str:
    """A PNG of the page, as a data: URL."""
    data = (_FOLDER / "assets" / name).read_bytes()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def percent(share: float) -> str:
    """A probability as people read it: 3 %, 0.4 %."""
    return f"{share * 100:.0f} %" if share >= 0.01 or share == 0 else f"{share * 100:.1g} %"


def points(gap: float) -> str:
    """The difference of two probabilities: +12 points."""
    return f"{gap * 100:+.0f} points"


def duration(seconds: float) -> str:
    """A rounded duration: 8 s, 3 min, 2 h."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


_ENVIRONMENT.filters.update(percent=percent, points=points, duration=duration)
