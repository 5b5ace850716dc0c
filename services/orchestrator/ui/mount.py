"""The page in the API's process, under ``/ui``."""

from __future__ import annotations

import os
from collections.abc import Callable

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import Scope

from services.common.packages import lighter
from services.orchestrator.ui.gate import Gate
from services.orchestrator.ui.late_page import LatePage
from services.orchestrator.ui.paths import ROOT


def mount(
    app: FastAPI, *, auth: bool, owner: Callable[[Scope], str], built: Callable[[], None]
) -> LatePage:
    """Adds the page to ``app``, which must open it for as long as it serves. Needs the extra
    ``ui``. With ``auth`` visitors are asked for their API key. ``owner`` returns the owner of a
    request that was let in; ``built`` is called once, when the page was built."""

    def build() -> FastAPI:
        holder = FastAPI()
        # Gradio looks there for the origins that may ask.
        holder.user_middleware = app.user_middleware
        _mount(holder, auth=auth, owner=owner)
        return holder

    page = LatePage(build, built)
    app.mount(ROOT, page)
    app.add_middleware(Gate)
    return page


def _mount(app: FastAPI, *, auth: bool, owner: Callable[[Scope], str]) -> None:
    # Set before Gradio is imported, since it reads them once; without them it contacts its makers.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    with lighter():
        import gradio as gr

    from services.orchestrator.ui import look, page
    from services.orchestrator.ui.render import asset
    from services.orchestrator.ui.sessions import Sessions

    built = page.build()
    gr.mount_gradio_app(
        app,
        built,
        path=ROOT,
        footer_links=[],
        run_history=False,
        # Visitors see only what ``gr.Error`` says. Other errors go to the log.
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=look.theme(),
        css=asset("page.css"),
        head=look.head(auth=auth),
        app_kwargs={
            "docs_url": None,
            "redoc_url": None,
            "middleware": [Middleware(Sessions, page=built, owner=owner)],
        },
    )
