"""Checks which optional packages are installed."""

from __future__ import annotations

from importlib.util import find_spec


def has_page() -> bool:
    """Whether the web page can be served."""
    return find_spec("gradio") is not None


def has_nf4() -> bool:
    """Whether weights can be quantised to 4 bits."""
    return find_spec("bitsandbytes") is not None


def page_fault(*, ui: bool) -> str | None:
    """Why the page can't be served although it was asked for, with the remedy; ``None`` if it
    can."""
    if ui and not has_page():
        return "--ui needs the extra ui: pip install 'dualprocess[ui]', or start with --no-ui"
    return None
