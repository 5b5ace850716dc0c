"""The whole page."""

from __future__ import annotations

from typing import Any

import gradio as gr

from dualprocess.schemas import JobKind
from services.orchestrator.ui import compare, gallery, teach, use
from services.orchestrator.ui.faults import EXPECTED, faults_of
from services.orchestrator.ui.gallery import Gallery
from services.orchestrator.ui.render import html
from services.orchestrator.ui.teach import Teach
from services.orchestrator.ui.use import Use
from services.orchestrator.ui.visitor import connected

_GALLERY_SECONDS = 5

TEACH, GALLERY, USE, COMPARE = "teach", "gallery", "use", "compare"


def build() -> gr.Blocks:
    with gr.Blocks(title="dualprocess", analytics_enabled=False, fill_width=True) as page:
        teach.piece("dp-header", html("header"))
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
        _wire_gallery(tabs, shelf, teaching, using)
        page.load(
            teaching.filling.opened,
            [teaching.job, *teaching.chosen_by],
            [*teaching.filling.outputs, teaching.faults],
            js=_ADDRESSED,
            show_progress="hidden",
        ).then(None, None, [teaching.job], js="() => dualprocess.addressed()")
    # A view of a job goes on as long as the job: nobody waits for another's to end.
    page.queue(default_concurrency_limit=None, api_open=False)
    return page


#: The first of a load's inputs is the job in the page's address.
_ADDRESSED = "(job, ...rest) => [dualprocess.addressed(), ...rest]"


def _wire_gallery_tab(tab: gr.Tab, others: tuple[gr.Tab, ...], shelf: Gallery) -> None:
    """The cards are fresh as long as somebody looks at them."""
    looked: dict[str, Any] = {
        "fn": gallery.listed,
        "inputs": [shelf.kind, shelf.count],
        "outputs": [shelf.cards],
        "show_progress": "hidden",
    }
    timer = gr.Timer(_GALLERY_SECONDS, active=False)
    timer.tick(**looked)
    tab.select(**looked)
    tab.select(lambda: gr.Timer(active=True), None, [timer], show_progress="hidden")
    for other in others:
        other.select(lambda: gr.Timer(active=False), None, [timer], show_progress="hidden")


def _wire_gallery(tabs: gr.Tabs, shelf: Gallery, teaching: Teach, using: Use) -> None:
    filling = teaching.filling

    async def act(request: gr.Request, kind: str, count: int, event: gr.EventData) -> list[Any]:
        """A card's button: open the job where it belongs, or delete it."""
        what, job_id = event._data["what"], event._data["job"]
        nothing = [gr.skip() for _ in [*filling.outputs, *using.filled, using.grid]]
        try:
            async with connected(request) as client:
                if what == "delete":
                    await client.delete(job_id)
                    cards = await gallery.listed(request, kind, count)
                    return [gr.skip(), cards, gr.skip(), *nothing]
                job = await client.job(job_id)
                if job.kind == JobKind.OPTIMIZE:
                    kept = [gr.skip() for _ in [*using.filled, using.grid]]
                    opened = gr.Tabs(selected=TEACH)
                    return [opened, gr.skip(), job.id, *filling.reopened(job), *kept]
                kept = [gr.skip() for _ in filling.outputs]
                shown = [*use.of_job(job), await use.show(client, job)]
                return [gr.Tabs(selected=USE), gr.skip(), gr.skip(), *kept, *shown]
        except EXPECTED as error:
            raise gr.Error(faults_of(error)["title"]) from error

    shelf.cards.act(
        act,
        [shelf.kind, shelf.count],
        [tabs, shelf.cards, teaching.job, *filling.outputs, *using.filled, using.grid],
        show_progress="hidden",
        cancels=[teaching.watching],
    )
