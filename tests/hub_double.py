"""A double of the Hugging Face hub's HTTP API: repositories in memory, with commits."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(kw_only=True)
class Hub:
    """What is in it, and what was asked of it."""

    url: str = ""
    repositories: dict[str, dict[str, dict[str, bytes]]] = dataclasses.field(default_factory=dict)
    """By repository and commit, in their order: files."""
    asked: list[str] = dataclasses.field(default_factory=list)
    private: set[str] = dataclasses.field(default_factory=set)
    refuses: bool = False
    """Whatever is to be changed."""

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        """Replaces the repository's files."""
        commits = self.repositories.setdefault(repository, {})
        name = hashlib.sha1(repr((len(commits), sorted(files))).encode()).hexdigest()
        commits[name] = files
        return name

    def newest(self, repository: str) -> dict[str, bytes]:
        return self.repositories[repository][self.revision(repository, "main") or ""]

    def revision(self, repository: str, text: str) -> str | None:
        commits = self.repositories[repository]
        return text if text in commits else list(commits)[-1] if text == "main" and commits else None


@contextlib.contextmanager
def hub_double() -> Iterator[Hub]:
    hub = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def plain(self, content: Any) -> None:
            self.answer(200, json.dumps(content).encode(), Content_Type="application/json")

        def do_GET(self) -> None:
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
            hub.asked.append(path)
            parts = path.strip("/").split("/")
            if parts[:2] == ["api", "models"] and len(parts) >= 6 and parts[4] == "tree":
                files = hub.newest("/".join(parts[2:4])) if hub.repositories["/".join(parts[2:4])] else {}
                self.plain([{"type": "file", "path": f, "size": len(b), "oid": "0" * 40} for f, b in files.items()])
                return
            if parts[:2] == ["api", "models"]:
                repository = "/".join(parts[2:4])
                self.plain({"id": repository, "private": repository in hub.private, "siblings": []})
                return
            repository, kind, asked, file = "/".join(parts[:2]), parts[2], parts[3], "/".join(parts[4:])
            assert kind == "resolve"
            if repository not in hub.repositories:
                self.answer(404, X_Error_Code="RepoNotFound")
                return
            commit = hub.revision(repository, asked)
            if commit is None:
                self.answer(404, X_Error_Code="RevisionNotFound")
                return
            content = hub.repositories[repository][commit].get(file)
            if content is None:
                self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
                return
            tag = hashlib.sha256(content).hexdigest()
            self.answer(200, content, ETag=f'"{tag}"', X_Repo_Commit=commit)

        do_HEAD = do_GET  # noqa: N815

        def do_POST(self) -> None:
            path = urllib.parse.urlsplit(self.path).path
            hub.asked.append(path)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            parts = path.strip("/").split("/")
            if hub.refuses:
                self.answer(403, json.dumps({"error": "not yours"}).encode(), X_Error_Message="not yours")
            elif path == "/api/repos/create":
                asked = json.loads(body)
                repository = f"{asked['organization']}/{asked['name']}" if "organization" in asked else asked["name"]
                if repository not in hub.repositories and (
                    asked.get("private") or asked.get("visibility") == "private"
                ):
                    hub.private.add(repository)
                hub.repositories.setdefault(repository, {})
                self.plain({"url": f"{hub.url}/{repository}"})
            elif path == "/api/validate-yaml":
                self.plain({"errors": [], "warnings": []})
            elif parts[4] == "preupload":
                files = [f["path"] for f in json.loads(body)["files"]]
                self.plain({"files": [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in files]})
            else:
                assert parts[4] == "commit"
                repository = "/".join(parts[2:4])
                files = dict(hub.newest(repository)) if hub.repositories[repository] else {}
                for line in body.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                    elif entry["key"] == "deletedFile":
                        del files[entry["value"]["path"]]
                commit = hub.commit(repository, files)
                self.plain({"commitUrl": f"{hub.url}/{repository}/commit/{commit}", "commitOid": commit})

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
