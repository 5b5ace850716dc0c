"""Who reaches whom in the cluster, by its policies."""

from __future__ import annotations

import itertools

import pytest

from tests.deploy.policies import Peer, lets_through, pod
from tests.deploy.rendered import OVERLAYS, Rendered, needs_kustomize, rendered

pytestmark = needs_kustomize

PORTS = {"api": 8000, "generator": 50051, "vlm": 50052, "redis": 6379}
#: Worker and generator share a pod.
WANTED = {("generator", "vlm"), ("generator", "redis"), ("api", "redis")}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Rendered:
    return rendered(request.param)


def test_pods_reach_each_other_only_where_they_must(overlay: Rendered) -> None:
    reached = {
        (source, target)
        for source, target in itertools.product(overlay.pods, overlay.pods)
        if lets_through(overlay, pod(overlay, source), pod(overlay, target), PORTS[target])
    }
    assert reached == {pair for pair in WANTED if pair[1] in overlay.pods}
    for name in overlay.pods:
        assert PORTS[name] in pod(overlay, name).ports.values()


def test_only_proxy_and_prometheus_come_in_and_only_to_the_api(overlay: Rendered) -> None:
    for namespace, may in (("ingress-nginx", True), ("monitoring", True), ("another", False)):
        let_in = {
            name
            for name in overlay.pods
            if lets_through(overlay, Peer(namespace), pod(overlay, name), PORTS[name])
        }
        assert let_in == ({"api"} if may else set())
    assert not lets_through(
        overlay, Peer(None, address="203.0.113.7"), pod(overlay, "api"), PORTS["api"]
    )


def test_only_prometheus_reads_metrics(overlay: Rendered) -> None:
    for namespace, may in (("monitoring", True), ("ingress-nginx", False), ("another", False)):
        for name, port in (("generator", 9101), ("generator", 9102), ("vlm", 9101)):
            assert lets_through(overlay, Peer(namespace), pod(overlay, name), port) is may
    assert not lets_through(overlay, pod(overlay, "generator"), pod(overlay, "vlm"), 9101)


def test_weights_files_and_webhooks_are_reached_outside(overlay: Rendered) -> None:
    web = Peer(None, address="203.0.113.7")
    for name in ("api", "generator", "vlm"):
        assert lets_through(overlay, pod(overlay, name), web, 443)
        assert not lets_through(overlay, pod(overlay, name), web, 80)
    if "redis" in overlay.pods:
        assert not lets_through(overlay, pod(overlay, "redis"), web, 443)


@pytest.mark.parametrize("name", ["gpu", "keda"])
def test_redis_elsewhere_is_reached_on_the_private_network(name: str) -> None:
    overlay = rendered(name)
    near, far = Peer(None, address="10.1.2.3"), Peer(None, address="203.0.113.7")
    for source in ("api", "generator"):
        for port in (6379, 26379):
            assert lets_through(overlay, pod(overlay, source), near, port)
            assert not lets_through(overlay, pod(overlay, source), far, port)
    assert not lets_through(overlay, pod(overlay, "vlm"), near, 6379)
