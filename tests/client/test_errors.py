"""Each status of a refusal, as the error that the client raises."""

from __future__ import annotations

import httpx
import pytest

import dualprocess
from dualprocess import (
    ApiError,
    Conflict,
    InvalidRequest,
    NotFound,
    RateLimited,
    ServiceUnavailable,
    Unauthorized,
    errors,
)
from tests.client.conftest import Talking

ERRORS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    402: ApiError,
    403: Unauthorized,
    404: NotFound,
    405: ApiError,
    409: Conflict,
    410: NotFound,
    413: InvalidRequest,
    415: InvalidRequest,
    421: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    500: ApiError,
    502: ServiceUnavailable,
    503: ServiceUnavailable,
    504: ServiceUnavailable,
}
#: Worth another try: the first one and one for each of the test's three pauses.
AWAY = (502, 503, 504)


@pytest.mark.parametrize("status", ERRORS)
def test_a_status_is_its_own_error_and_is_tried_again_only_while_the_service_is_away(
    talking_to: Talking, status: int
) -> None:
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, json={"title": "No", "status": status})

    with pytest.raises(ApiError) as caught:
        talking_to(handle).models()
    assert type(caught.value) is ERRORS[status]
    assert caught.value.problem.status == status
    assert len(asked) == (4 if status in AWAY else 1)


def test_every_refusal_can_be_caught_by_its_name() -> None:
    raised = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    ours = {name for name in raised if issubclass(vars(errors)[name], ApiError)}
    assert ours <= set(dualprocess.__all__)


def test_a_job_that_the_service_can_not_show_is_told(talking_to: Talking) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"jobs": [], "unreadable": ["01m8bhc8se3dnjdnna4g640807"]})

    with pytest.warns(UserWarning, match="01m8bhc8se3dnjdnna4g640807"):
        assert list(talking_to(answer).jobs()) == []
