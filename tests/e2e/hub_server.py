"""A hub that takes a repository with one commit, as huggingface_hub sends it."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_a_test"


@dataclass
class Hub:
    """``files`` by name; ``made`` are the requests to make a repository, ``heads`` what it was
    asked to validate."""

    url: str = ""
    made: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)


@contextlib.contextmanager
def hub_server() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self._body()
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                self._answer({"error": "Invalid credentials"}, 401)
            elif self.path == "/api/repos/create":
                hub.made.append(json.loads(body))
                self._answer({"url": f"{hub.url}/someone/red", "id": "someone/red"})
            elif self.path == "/api/validate-yaml":
                hub.heads.append(json.loads(body)["content"])
                self._answer({"errors": [], "warnings": []})
            elif self.path == "/api/models/someone/red/preupload/main":
                self._answer({"files": [_mode(file) for file in json.loads(body)["files"]]})
            elif self.path == "/someone/red.git/info/lfs/objects/batch":
                self._answer({"objects": [_upload(one) for one in json.loads(body)["objects"]]})
            elif self.path == "/api/models/someone/red/commit/main":
                self._commit([json.loads(line) for line in body.splitlines()])
            else:
                self._answer({"error": f"no route {self.path}"}, 404)

        def do_PUT(self) -> None:
            hub.objects[self.path.rpartition("/")[2]] = self._body()
            self._answer({})

        def _commit(self, lines: list[dict[str, Any]]) -> None:
            for line in lines:
                told = line["value"]
                if line["key"] == "header":
                    hub.messages.append(told["summary"])
                elif line["key"] == "file":
                    hub.files[told["path"]] = base64.b64decode(told["content"])
                elif line["key"] == "lfsFile":
                    hub.files[told["path"]] = hub.objects[told["oid"]]
            self._answer({"commitUrl": f"{hub.url}/someone/red/commit/1", "commitOid": "1" * 40})

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def _answer(self, body: dict[str, Any], status: int = 200) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    def _mode(file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith((".safetensors", ".png"))
        mode = "lfs" if large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def _upload(one: dict[str, Any]) -> dict[str, Any]:
        action = {"href": f"{hub.url}/objects/{one['oid']}"}
        return {"oid": one["oid"], "size": one["size"], "actions": {"upload": action}}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
