"""Which scope a route takes follows from what it does: a new route needs no line here."""

from __future__ import annotations

import pytest

from services.orchestrator.api.auth import OPEN_PATHS
from tests.orchestrator.conftest import SPEC, Guarded
from tests.orchestrator.test_strangers import routes

NOBODYS = "0" * 26
WATCHING = ("/metrics",)


def needed(method: str, path: str) -> str:
    """A request that starts, stops or deletes something needs the scope submit."""
    if path in WATCHING:
        return "admin"
    return "read" if method in ("GET", "HEAD") else "submit"


@pytest.mark.parametrize("scope", ["submit", "read"])
async def test_a_key_with_another_scope_is_refused_at_every_route(
    guarded: Guarded, scope: str
) -> None:
    api = await guarded.owner(scope)
    for method, path, _ in routes(guarded):
        wanted = needed(method, path)
        if path in OPEN_PATHS or wanted == scope:
            continue
        address = path.format(job_id=NOBODYS, batch_id=NOBODYS, name="x")
        answer = await api.http.request(method, address)
        where = f"{method} {path} with a key of scope {scope}"
        assert answer.status_code == 403, where
        # A HEAD says it in the header alone.
        assert f'scope="{wanted}"' in answer.headers["www-authenticate"], where


async def test_a_batch_goes_on_when_a_key_that_may_only_read_cancels_it(guarded: Guarded) -> None:
    owner, reader = await guarded.owner(), await guarded.owner("read")
    batch = (await owner.http.post("/v1/batches", json={"specs": [SPEC]})).json()
    refused = await reader.http.post(f"/v1/batches/{batch['id']}/cancel")
    assert refused.status_code == 403
    assert refused.json()["title"] == "The API key lacks the scope submit"
    assert (await owner.job(batch["jobs"][0]["id"])).status == "queued"
