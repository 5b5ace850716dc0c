"""A short version of ``python -m tests.fuzz``: every operation, every check, the same seed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.rest import fuzz
from tests.fuzz.world import World, peopled
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    server = RedisServer(folder)
    server.start()
    try:
        with peopled(server.url, folder) as world:
            yield world
    finally:
        server.stop()


@pytest.mark.parametrize("auth", [False, True], ids=["open", "with keys"])
def test_the_api_is_as_its_document_says(world: World, auth: bool) -> None:
    # Edges are the same with keys and without, and most of the time.
    findings = fuzz(world, auth=auth, examples=3, seed=1, edges=auth)
    assert dict(findings.faults) == {}
    # Each got past its first check: otherwise nothing was shown.
    for operation, answers in findings.answers.items():
        wanted = 403 if auth and operation == "GET /metrics" else 200
        assert any(wanted <= status < wanted + 100 for status in answers), operation
