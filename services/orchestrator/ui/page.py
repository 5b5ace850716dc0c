"""The whole page."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dualprocess.schemas import JobKind
from services.orchestrator.ui import compare, gallery, running, teach, use
from services.orchestrator.ui.gallery import Gallery
from services.orchestrator.ui.pieces import piece
from services.orchestrator.ui.render import html
from services.orchestrator.ui.teach import Teach
from services.orchestrator.ui.use import Use
from services.orchestrator.ui.visitor import visiting

_GALLERY_SECONDS = 5

TEACH, GALLERY, USE, COMPARE = "teach", "gallery", "use", "compare"


def build() -> gr.Blocks:
    with gr.Blocks(title="dualprocess", analytics_enabled=False, fill_width=True) as page:
        piece("dp-header", html("header"))
        with gr.Tabs(elem_id="dp-tabs") as tabs:
            with gr.Tab("Teach", id=TEACH) as teach_tab:
                teaching = teach.build()
            with gr.Tab("Gallery", id=GALLERY) as gallery_tab:
                shelf = gallery.build()
            with gr.Tab("Use", id=USE) as use_tab:
                using = use.build()
            with gr.Tab("Compare", id=COMPARE) as compare_tab:
                comparing = compare.build()
        _wire_gallery_tab(gallery_tab, (teach_tab, use_tab, compare_tab), shelf)
        use_tab.select(
            use.opened,
            [using.generator, teaching.filling.fields.by_path["generator"]],
            [using.generator, using.loras],
            show_progress="hidden",
        )
        menus = [comparing.left, comparing.right]
        compare_tab.select(compare.offered, menus, menus, show_progress="hidden")
        _wire_jobs(tabs, shelf, teaching, using)
        page.load(
            teaching.filling.opened,
            [teaching.job, *teaching.chosen_by],
            [*teaching.filling.outputs, *teaching.filling.words.offered, teaching.faults],
            js=_ADDRESSED,
            show_progress="hidden",
        ).then(None, None, [teaching.job], js="() => dualprocess.addressed()")
    # A view of a job runs as long as the job does, so no view may wait for another one.
    page.queue(default_concurrency_limit=None, api_open=False)
    assert isinstance(page, gr.Blocks)
    return page


#: Puts the job of the page's address in place of the first input when the page loads.
_ADDRESSED = "(job, ...rest) => [dualprocess.addressed(), ...rest]"


def _wire_gallery_tab(tab: gr.Tab, others: tuple[gr.Tab, ...], shelf: Gallery) -> None:
    """Updates the cards as long as the tab is shown."""
    timer = gr.Timer(_GALLERY_SECONDS, active=False)
    timer.tick(**shelf.look)
    tab.select(**shelf.look)
    tab.select(lambda: gr.Timer(active=True), None, [timer], show_progress="hidden")
    for other in others:
        other.select(lambda: gr.Timer(active=False), None, [timer], show_progress="hidden")


def _wire_jobs(tabs: gr.Tabs, shelf: Gallery, teaching: Teach, using: Use) -> None:
    """Connects the buttons of a job, in the gallery and at the end of its panel."""
    filling = teaching.filling

    async def opened(request: gr.Request, event: gr.EventData) -> list[Any]:
        """Opens the job in the tab where it was made."""
        async with visiting(request) as client:
            job = await client.job(event._data["job"])
        return [gr.Tabs(selected=TEACH), running.asked(job.id), *filling.reopened(job)]

    async def used(request: gr.Request, event: gr.EventData) -> list[Any]:
        """Opens the Use tab with the job's LoRA, or with the images that it made."""
        async with visiting(request) as client:
            job = await client.job(event._data["job"])
            images = await use.show(client, job) if job.kind == JobKind.IMAGES else gr.skip()
        return [gr.Tabs(selected=USE), *use.of_job(job), images]

    async def deleted(
        request: gr.Request, kind: str, count: int, event: gr.EventData
    ) -> tuple[str, Any]:
        async with visiting(request) as client:
            await client.delete(event._data["job"])
        return await gallery.listed(request, kind, count)

    shelf.cards.open(
        opened,
        None,
        [tabs, teaching.job, *filling.outputs],
        show_progress="hidden",
        cancels=[teaching.watching],
    )
    for buttons in (shelf.cards, teaching.outcome):
        buttons.use(used, None, [tabs, *using.filled, using.grid], show_progress="hidden")
    shelf.cards.delete(**shelf.look | {"fn": deleted})
