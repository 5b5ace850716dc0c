"""Whom NetworkPolicies let through, as a network plugin reads them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.deploy.rendered import Rendered

_NAMESPACE = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Peer:
    """A pod of a namespace, or, without one, an address outside."""

    namespace: str | None
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    address: str = ""


def pod(overlay: Rendered, name: str) -> Peer:
    template = overlay.pods[name]
    ports = {
        port["name"]: port["containerPort"]
        for container in overlay.containers.values()
        if container.pod == name
        for port in container.spec.get("ports", [])
    }
    return Peer("dualprocess", template["metadata"]["labels"], ports)


def lets_through(overlay: Rendered, source: Peer, target: Peer, port: int) -> bool:
    """Whether both ends' policies allow TCP from ``source`` to this port of ``target``."""
    return all(
        _allows(overlay, way, mine, other, port, target)
        for way, mine, other in (("Egress", source, target), ("Ingress", target, source))
    )


def _allows(overlay: Rendered, way: str, mine: Peer, other: Peer, port: int, target: Peer) -> bool:
    if mine.namespace != "dualprocess":
        return True
    policies = [
        policy["spec"]
        for policy in overlay.of("NetworkPolicy").values()
        if way in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], mine.labels)
    ]
    key, peers = ("egress", "to") if way == "Egress" else ("ingress", "from")
    return not policies or any(
        _is_one_of(rule.get(peers), other) and _has_port(rule.get("ports"), port, target)
        for policy in policies
        for rule in policy.get(key, [])
    )


def _is_one_of(listed: Iterable[Mapping[str, Any]] | None, peer: Peer) -> bool:
    return listed is None or any(_is(one, peer) for one in listed)


def _is(one: Mapping[str, Any], peer: Peer) -> bool:
    if "ipBlock" in one:
        network = ipaddress.ip_network(one["ipBlock"]["cidr"])
        return bool(peer.address) and ipaddress.ip_address(peer.address) in network
    if peer.namespace is None:
        return False
    if "namespaceSelector" not in one and peer.namespace != "dualprocess":
        return False
    namespace = {_NAMESPACE: peer.namespace}
    return _selects(one.get("namespaceSelector", {}), namespace) and _selects(
        one.get("podSelector", {}), peer.labels
    )


def _has_port(listed: Iterable[Mapping[str, Any]] | None, port: int, target: Peer) -> bool:
    return listed is None or any(
        one["protocol"] == "TCP" and target.ports.get(str(one["port"]), one["port"]) == port
        for one in listed
    )


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for wanted in selector.get("matchExpressions", []):
        assert wanted["operator"] == "In"
        if labels.get(wanted["key"]) not in wanted["values"]:
            return False
    return True
