"""Makes each session of Gradio belong to the key that began it."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlencode

import gradio as gr
from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dualprocess.schemas import Problem
from services.orchestrator.route_path import route_path
from services.orchestrator.ui import asked
from services.orchestrator.ui.asked import Cancel, Join, NotUsable, Reset

_HEARTBEAT = "/gradio_api/heartbeat/"

#: How many functions of the page one owner may run at once. An open tab usually runs one.
_UNDER_WAY = 100
#: How many sessions Gradio keeps for one owner. Each needs about a quarter of a megabyte.
_KEPT = 100
_RETRY_AFTER_SECONDS = 5


class _Refused(Exception):
    def __init__(self, status: int, title: str, detail: str, **headers: str) -> None:
        super().__init__(title)
        self.problem = Problem(status=status, title=title, detail=detail)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Sessions:
    """ASGI middleware in front of Gradio.

    In Gradio, a session has a name that the browser chooses. This adds the owner's name in front of
    it, so the same name under another key is another session. Requests at which Gradio would fail
    are refused with a sentence. Of a query, Gradio gets only the session's name.
    """

    def __init__(self, app: ASGIApp, page: gr.Blocks, owner: Callable[[Scope], str]) -> None:
        self._app = app
        self._page = page
        self._owner = owner
        #: Owner → its sessions; the one that was used last is at the end.
        self._sessions: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope, receive = await self._as_owned(scope, receive)
        except NotUsable as error:
            problem = Problem(
                status=400,
                title="The page sent a request that can't be used",
                detail=". ".join(f"{one.field} {one.message}" for one in error.errors[:3]),
                errors=error.errors,
            )
            await _answer(problem)(scope, receive, send)
        except _Refused as refused:
            await _answer(refused.problem, refused.headers)(scope, receive, send)
        except ClientDisconnect:
            return
        else:
            await self._app(scope, receive, send)

    async def _as_owned(self, scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
        """The request as Gradio gets it. Raises ``NotUsable`` and ``_Refused``."""
        path = route_path(scope)
        owned = dict(scope, query_string=b"")
        match scope["method"], path.removeprefix("/gradio_api").rstrip("/"):
            case "POST", "/queue/join":
                join = asked.read(Join, await _body(scope, receive))
                return _with_body(owned, receive, self._joined(self._owner(scope), join))
            case "POST", "/cancel":
                cancel = asked.read(Cancel, await _body(scope, receive))
                return _with_body(owned, receive, self._cancelled(self._owner(scope), cancel))
            case "POST", "/reset":
                # It does nothing, since Gradio ends the event at the ``Cancel``.
                return _with_body(owned, receive, asked.read(Reset, await _body(scope, receive)))
            case "GET", "/queue/data":
                session = self._heard(self._owner(scope), scope["query_string"])
                owned["query_string"] = urlencode({"session_hash": session}).encode()
        if path.startswith(_HEARTBEAT):
            name = asked.session_name(path.removeprefix(_HEARTBEAT).rstrip("/"))
            session = _session(self._owner(scope), name)
            owned["path"] = f"{scope['root_path']}{_HEARTBEAT}{session}"
        return owned, receive

    def _joined(self, owner: str, join: Join) -> Join:
        asked.check(join, self._page)
        if len(self._busy(owner)) >= _UNDER_WAY:
            raise _Refused(
                429,
                "Too many requests of the page are running",
                f"This key may have {_UNDER_WAY} at once; close tabs, or wait for some to end.",
                Retry_After=str(_RETRY_AFTER_SECONDS),
            )
        session = _session(owner, join.session_hash)
        self._remember(owner, session)
        return join.model_copy(update={"session_hash": session})

    def _cancelled(self, owner: str, cancel: Cancel) -> Cancel:
        session = _session(owner, cancel.session_hash)
        event = self._page._queue.event_ids_to_events.get(cancel.event_id)
        if event is None or event.session_hash != session:
            raise _Refused(404, "There is no such event", "It may have ended; nothing was changed.")
        return cancel.model_copy(update={"session_hash": session})

    def _heard(self, owner: str, query: bytes) -> str:
        names = parse_qs(query.decode("latin-1")).get("session_hash", [""])
        session = _session(owner, asked.session_name(names[0]))
        if session not in self._page._queue.pending_messages_per_session:
            raise _Refused(404, "There is no such session", "Join the queue first, with this key.")
        return session

    def _busy(self, owner: str) -> list[str]:
        """The session of each of the owner's events that wait or run."""
        events = self._page._queue.event_ids_to_events.values()
        return [event.session_hash for event in events if _is_of(owner, event.session_hash)]

    def _remember(self, owner: str, session: str) -> None:
        """Removes the owner's oldest idle sessions, so that Gradio does not remove those of
        others."""
        sessions = self._sessions[owner]
        sessions[session] = None
        sessions.move_to_end(session)
        if len(sessions) <= _KEPT:
            return
        busy = {session, *self._busy(owner)}
        for idle in [one for one in sessions if one not in busy][: len(sessions) - _KEPT]:
            del sessions[idle]
            self._page._queue.pending_messages_per_session.pop(idle, None)
            self._page._queue.pending_event_ids_session.pop(idle, None)
            self._page.state_holder.session_data.pop(idle, None)
            self._page.state_holder.time_last_used.pop(idle, None)


def _session(owner: str, name: str) -> str:
    """The session's name in Gradio. Neither part has a dot."""
    return f"{owner}.{name}"


def _is_of(owner: str, session: str) -> bool:
    return session.startswith(f"{owner}.")


async def _body(scope: Scope, receive: Receive) -> bytes:
    return await Request(scope, receive).body()


def _with_body(scope: Scope, receive: Receive, body: BaseModel) -> tuple[Scope, Receive]:
    """The request with ``body`` in place of its own, which was read already."""
    sent = body.model_dump_json().encode()
    headers = MutableHeaders(raw=list(scope["headers"]))
    headers.update({"Content-Type": "application/json", "Content-Length": str(len(sent))})
    waiting: list[Message] = [{"type": "http.request", "body": sent, "more_body": False}]

    async def received() -> Message:
        return waiting.pop() if waiting else await receive()

    return dict(scope, headers=headers.raw), received


def _answer(problem: Problem, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        problem.status,
        headers=dict(headers or {}),
        media_type="application/problem+json",
    )
