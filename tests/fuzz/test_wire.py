"""A short version of ``python -m tests.fuzz``, the same calls in every run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.services import Service, running
from tests.fuzz.wire import fuzz, generator_targets, vlm_targets

EXAMPLES = 200


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Service]]:
    with running(tmp_path_factory.mktemp("fuzz")) as started:
        yield started


@pytest.mark.parametrize("name", ["vlm", "generator"])
def test_each_malformed_call_gets_a_status_with_a_sentence(
    services: tuple[Service, Service], name: str
) -> None:
    generator, vlm = services
    service = vlm if name == "vlm" else generator
    targets = [*vlm_targets(), *generator_targets(generator.target, vlm.target)]
    targets = [target for target in targets if target.service == name]
    for target in targets:
        findings = fuzz(service.target, target, examples=EXAMPLES // len(targets), random_seed=1)
        assert findings.faults == []
        assert findings.statuses["INVALID_ARGUMENT"] > 0
    assert service.is_alive
    assert service.serves
