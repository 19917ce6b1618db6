"""A local stand-in for the HTTP API of the Hugging Face Hub: one repository in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """The repository `me/run` with one commit at a time, and what clients asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.created: list[dict[str, Any]] = []
        self.url = ""

    @property
    def commit(self) -> str:
        """Commit hash of the current files."""
        content = [f"{name}\0{hashlib.sha256(x).hexdigest()}" for name, x in sorted(self.files.items())]
        return hashlib.sha1("\n".join(content).encode()).hexdigest()


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve a hub on a port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def answer_json(self, content: Any) -> None:
            self.answer(200, json.dumps(content).encode(), Content_Type="application/json")

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            hub.requests.append(f"{self.command} {path}")
            siblings = [{"rfilename": name, "size": len(x)} for name, x in hub.files.items()]
            if path.startswith("/api/models/me/run/revision/"):
                revision = path.rsplit("/", 1)[1]
                if revision not in ("main", "v1", hub.commit):
                    self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
                    return
                self.answer_json({"id": "me/run", "sha": hub.commit, "siblings": siblings})
            elif path.startswith("/api/models/me/run/tree/"):
                tree = [
                    {"type": "file", "path": name, "size": len(x), "oid": hashlib.sha1(x).hexdigest()}
                    for name, x in hub.files.items()
                ]
                self.answer_json(tree)
            elif path.startswith("/me/run/resolve/"):
                name = path.split("/", 5)[5]
                content = hub.files[name]
                tag = f'"{hashlib.sha256(content).hexdigest()}"'
                self.answer(200, content, ETag=tag, X_Repo_Commit=hub.commit)
            else:
                self.answer(404, b"{}", X_Error_Code="RepoNotFound")

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            path = self.path.partition("?")[0]
            hub.requests.append(f"POST {path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if path == "/api/repos/create":
                hub.created.append(json.loads(body))
                self.answer_json({"url": f"{hub.url}/me/run"})
            elif path.startswith("/api/models/me/run/preupload/"):
                files = json.loads(body)["files"]
                plain = [{"path": x["path"], "uploadMode": "regular", "shouldIgnore": False} for x in files]
                self.answer_json({"files": plain})
            elif path.startswith("/api/models/me/run/commit/"):
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        value = line["value"]
                        hub.files[value["path"]] = base64.b64decode(value["content"])
                url = f"{hub.url}/me/run/commit/{hub.commit}"
                self.answer_json({"success": True, "commitOid": hub.commit, "commitUrl": url})
            elif path == "/api/validate-yaml":
                self.answer_json({"errors": [], "warnings": []})
            else:
                self.answer(404, b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
