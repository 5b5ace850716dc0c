"""The requests that the page may send to Gradio's queue. They are checked before Gradio gets
them."""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

import gradio as gr
from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic_core import from_json

from dualprocess.schemas import FieldError
from dualprocess.schemas.faults import field_errors

_SESSION = re.compile(r"[A-Za-z0-9]{1,64}")
_EVENT = re.compile(r"[0-9a-f]{32}")


def _session(text: str) -> str:
    if not _SESSION.fullmatch(text):
        raise ValueError("must be 1 to 64 letters and digits")
    return text


def _event(text: str) -> str:
    if not _EVENT.fullmatch(text):
        raise ValueError("must be an event_id that queue/join returned")
    return text


#: The browser makes it.
SessionName = Annotated[str, AfterValidator(_session)]
#: Gradio's queue makes it.
EventName = Annotated[str, AfterValidator(_event)]

#: The largest integer of 64 bits.
_LARGEST_NUMBER = 2**63 - 1

_RELOAD = "reload the page, which may be of an earlier version"


class NotUsable(Exception):
    """A request that Gradio can't use: the faults, each with its field."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(errors)
        self.errors = list(errors)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Join(_Body):
    """Runs a function of the page in a session."""

    session_hash: SessionName
    fn_index: int
    data: list[JsonValue]
    event_data: JsonValue = None
    trigger_id: int | None = None


class Cancel(_Body):
    """Ends an event of a session."""

    session_hash: SessionName
    fn_index: int
    event_id: EventName


class Reset(_Body):
    """Gradio's scripts send it after each ``Cancel``."""

    event_id: EventName


_Asked = TypeVar("_Asked", bound=_Body)


def read(kind: type[_Asked], body: bytes) -> _Asked:
    """The parsed and checked body. Raises ``NotUsable``."""
    try:
        found = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise NotUsable(FieldError(field="body", message=f"is not JSON: {error}")) from error
    if not isinstance(found, dict):
        raise NotUsable(FieldError(field="body", message="must be a JSON object"))
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        raise NotUsable(*field_errors(errors)) from error


def session_name(text: str) -> str:
    """The text, if a session can have that name. Raises ``NotUsable``."""
    try:
        return _session(text)
    except ValueError as error:
        raise NotUsable(FieldError(field="session_hash", message=str(error))) from error


def check(join: Join, page: gr.Blocks) -> None:
    """Raises ``NotUsable`` unless the page has this function, with these inputs."""
    fn = page.fns.get(join.fn_index)
    # Gradio's scripts run functions without a queue in the browser.
    if fn is None or not fn.queue:
        raise NotUsable(_stale("fn_index", "is not a function of the page"))
    # 0 is the page itself, when it loads.
    if join.trigger_id and join.trigger_id not in page.blocks:
        raise NotUsable(_stale("trigger_id", "is not a part of the page"))
    wanted, given = len(fn.inputs), len(join.data)
    if given != wanted:
        raise NotUsable(_stale("data", f"has {given} values, but the function takes {wanted}"))
    faults = [
        _stale(f"data.{place}", fault)
        for place, (component, value) in enumerate(zip(fn.inputs, join.data, strict=True))
        if (fault := _fault(component, value))
    ]
    if faults:
        raise NotUsable(*faults)


def _fault(component: object, value: JsonValue) -> str | None:
    """The fault if a value has the wrong type. The API itself checks the value's limits."""
    match component:
        # The server has its own state, and ignores the browser's.
        case gr.State():
            return None
        case gr.Checkbox():
            return None if isinstance(value, bool) else "must be true or false"
        case gr.Slider():
            return None if _is_number(value) else "must be a number"
        case gr.Number():
            return None if value is None or _is_number(value) else "must be a number or null"
        case gr.Radio():
            known = [choice for _, choice in component.choices]
            return None if value in known else f"must be one of {', '.join(map(str, known))}"
        case gr.Dropdown(multiselect=True):
            several = isinstance(value, list) and all(isinstance(one, str) for one in value)
            return None if value is None or several else "must be a list of texts or null"
        # The page's own widgets. Each sends a value of the type that it was made with.
        case gr.HTML(value=list()):
            several = isinstance(value, list) and all(isinstance(one, dict) for one in value)
            return None if value is None or several else "must be a list of objects or null"
    return None if value is None or isinstance(value, str) else "must be a text or null"


def _is_number(value: JsonValue) -> bool:
    """Whether it is a number that an answer can contain; JSON's ``1e400`` is read as infinity."""
    return (
        not isinstance(value, bool)
        and isinstance(value, int | float)
        and abs(value) <= _LARGEST_NUMBER
    )


def _stale(field: str, fault: str) -> FieldError:
    return FieldError(field=field, message=f"{fault}; {_RELOAD}")
