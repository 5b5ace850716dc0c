"""Server-sent events: all of them come, once, and in order."""

from __future__ import annotations

import json
import time

from tests.orchestrator.conftest import Api, Site


def _events(stream: str) -> list[tuple[str, str, object]]:
    """Id, type and data of each event of a stream."""
    events = []
    for block in stream.replace("\r\n", "\n").strip().split("\n\n"):
        lines = [line for line in block.split("\n") if line and line[0] != ":"]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields:
            events.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return events


async def test_a_stream_tells_everything_and_ends_with_the_job(api: Api, site: Site) -> None:
    site.start_worker()
    job = await api.submit()
    stream = await api.events(job.id)
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = _events(stream.text)
    statuses = [data for _, kind, data in events if kind == "status"]
    assert [status["status"] for status in statuses] == [  # type: ignore[index]
        "queued",
        "running",
        "succeeded",
    ]
    assert [kind for _, kind, _ in events].count("step") == 3
    assert {"preview", "artifact"} < {kind for _, kind, _ in events}


async def test_resuming_misses_nothing_and_repeats_nothing(api: Api, site: Site) -> None:
    site.start_worker()
    job = await api.submit()
    events = _events((await api.events(job.id)).text)
    for cut in (0, len(events) // 2, len(events) - 2):
        again = await api.events(job.id, behind=events[cut][0])
        assert _events(again.text) == events[cut + 1 :]


async def test_resuming_behind_the_end_ends_at_once(api: Api, site: Site) -> None:
    site.start_worker()
    job = await api.submit()
    last = _events((await api.events(job.id)).text)[-1][0]
    begin = time.monotonic()
    again = await api.events(job.id, behind=last)
    assert _events(again.text) == []
    assert time.monotonic() - begin < 3


async def test_a_wrong_last_event_id_is_refused(api: Api) -> None:
    job = await api.submit()
    answer = await api.http.get(f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": "x"})
    assert answer.status_code == 422
