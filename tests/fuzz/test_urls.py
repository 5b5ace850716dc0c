"""Any text in place of a URL or an address is accepted, or refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from dualprocess import Client, InvalidSetup
from services.common.addresses import Host, Target
from services.common.redis_address import checked_redis_url
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.webhooks.addresses import AddressPolicy, AddressRefused

_LABELS = st.sampled_from(
    ["a", "xn--", "xn--a", "-", "_", "", "%31", "1", "0x7f", "é", "☃", "\u00ad", "。", "a" * 64]
)
_HOSTS = st.lists(_LABELS, min_size=1, max_size=4).map(".".join) | st.sampled_from(
    ["[::1]", "[::1", "[fe80::1%25eth0]", "[v1.a]", "*", "127.1", "a b", "a\u2024b", "@", "a@b"]
)
_PORTS = st.integers(-1, 10**6).map(lambda port: f":{port}") | st.sampled_from(
    ["", ":", ":１", ":1:1", ":" + "9" * 30, ":" + "9" * 5000, ":0x10", ": 1"]
)
_PATHS = st.sampled_from(
    ["", "/", "/é", "/%", "/%zz", "/a b", "?%", "/?q#f", "/\x7f", "/" + "a" * 99]
)
_SCHEMES = st.sampled_from(
    ["https://", "http://", "redis://", "rediss://", "unix://", "//", "", ":"]
)
_URLS = st.builds("{}{}{}{}".format, _SCHEMES, _HOSTS, _PORTS, _PATHS) | st.text(max_size=30)

fuzzed = settings(max_examples=300, deadline=None, derandomize=True, database=None)


def refusal(call: Callable[[], object], kind: type[Exception]) -> str:
    """The sentence of the only error; empty if there was none."""
    try:
        call()
    except kind as error:
        return str(error)
    return ""


@fuzzed
@given(url=_URLS)
def test_of_a_webhook(url: str) -> None:
    for loopback in (False, True):
        policy = AddressPolicy(loopback=loopback)
        said = refusal(lambda policy=policy: policy.parsed(url), AddressRefused)  # type: ignore[misc]
        if said:
            assert ";" in said or "must" in said
            continue
        parsed = policy.parsed(url)
        # Whatever connects needs all of these.
        assert parsed.host
        assert parsed.raw_host.decode().encode("idna")
        assert parsed.port is None or 0 < parsed.port < 1 << 16


@fuzzed
@given(url=_URLS)
def test_of_the_service(url: str) -> None:
    said = refusal(lambda: Client(url).close(), InvalidSetup)
    assert not said or "is no address of a service" in said


@fuzzed
@given(url=_URLS)
def test_of_redis(url: str) -> None:
    said = refusal(lambda: checked_redis_url(url), ValueError)
    assert len(said) < 400


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "%00", "localhost:99999", "localhost:0"])
def test_of_a_redis_that_could_never_be_asked(host: str) -> None:
    said = refusal(lambda: checked_redis_url(f"redis://{host}/0"), ValueError)
    assert "parts of 1 to 63" in said or "port" in said


@fuzzed
@given(text=_URLS)
@pytest.mark.parametrize("kind", [Host, Target])
def test_of_a_grpc_service(kind: Any, text: str) -> None:
    said = refusal(lambda: TypeAdapter(kind).validate_python(text), ValidationError)
    assert not said or said.startswith("1 validation error")


@fuzzed
@given(url=_URLS)
def test_of_the_settings(url: str) -> None:
    for setting in ("llm_base_url", "cors_origins", "root_path", "trusted_proxies"):
        given_ = {setting: url, "llm_model": "some-model"}
        said = refusal(
            lambda given_=given_: ApiSettings.model_validate(given_).llm_fault(),  # type: ignore[misc]
            ValidationError,
        )
        assert not said or f"\n{setting}\n" in said
