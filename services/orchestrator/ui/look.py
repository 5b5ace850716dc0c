"""The look of the page: Gradio's theme with our colours, and the fonts of the visitor's machine."""

from __future__ import annotations

import json
from urllib.parse import quote

import gradio as gr

from services.orchestrator.ui.paths import KEY_COOKIE
from services.orchestrator.ui.render import asset

_VERMILION = gr.themes.Color(
    name="vermilion",
    c50="#fdf3ef",
    c100="#fbe2d8",
    c200="#f6c3b0",
    c300="#ee9b7f",
    c400="#e36f4b",
    c500="#d14f27",
    c600="#bd4019",
    c700="#9c3415",
    c800="#7d2c15",
    c900="#662715",
    c950="#3a130a",
)
_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    return gr.themes.Base(
        primary_hue=_VERMILION,
        neutral_hue="stone",
        radius_size="md",
        font=_SANS,
        font_mono=_MONO,
    ).set(
        body_background_fill="#faf8f5",
        body_background_fill_dark="#171412",
        block_border_width="0px",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_shadow="none",
        block_padding="0",
        block_label_text_weight="600",
        block_title_text_weight="600",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1f1b18",
        input_border_width="1px",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_text_color="#ffffff",
        panel_background_fill="transparent",
    )


def head(*, auth: bool) -> str:
    """The page's own scripts, which must load before Gradio's components use them."""
    script = asset("page.js").replace("__KEY_COOKIE__", KEY_COOKIE)
    script = script.replace("__AUTH__", json.dumps(auth))
    icon = f"data:image/svg+xml,{quote(asset('icon.svg'))}"
    link = f'<link rel="icon" href="{icon}">'
    return f"{link}<script>{script}</script><script>{asset('drawing.js')}</script>"
