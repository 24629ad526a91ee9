"""Servers on loopback that fail when they are told to: files by HTTP with ranges, and S3 (moto's)."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import pathlib
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

Fault = str | None
"""`503`, `404`, `403`; `break`: half of the body, then the connection ends; `stall`: half, and then nothing."""


@dataclasses.dataclass(kw_only=True)
class Served:
    """A server that is up."""

    url: str
    fault: Callable[[str, int], Fault] = lambda path, attempt: None
    """By path and which time it is asked for, from 1."""
    asked: Counter[str] = dataclasses.field(default_factory=Counter)
    """How often bodies were asked for."""
    failed: int = 0
    answers_head: bool = True
    released: threading.Event = dataclasses.field(default_factory=threading.Event)
    """Ends what stalls."""

    def meets(self, method: str, path: str) -> Fault:
        """What goes wrong with a request."""
        if method != "GET":
            return None
        self.asked[path] += 1
        fault = self.fault(path, self.asked[path])
        self.failed += fault is not None
        return fault


def one_in(count: int) -> Callable[[str, int], Fault]:
    """Every so many first requests fail, in turn by a status and by a broken body."""
    numbers = iter(range(10**9))

    def fault(path: str, attempt: int) -> Fault:
        number = next(numbers)
        return ("503", "break")[number // count % 2] if number % count == count - 1 and attempt == 1 else None

    return fault


@contextlib.contextmanager
def web_server(folder: pathlib.Path) -> Iterator[Served]:
    """Gives the files of a folder."""
    served = Served(url="")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = urllib.parse.unquote(self.path)
            fault, file = served.meets(self.command, path), folder / path.lstrip("/")
            status = int(fault) if fault is not None and fault.isdigit() else 200 if file.is_file() else 404
            if self.command == "HEAD" and not served.answers_head:
                status = 405
            body = file.read_bytes() if status == 200 else b""
            headers = {}
            if status == 200:
                headers = {"ETag": f'"{file.stat().st_mtime_ns:x}"', "Accept-Ranges": "bytes"}
                if asked := self.headers.get("Range"):
                    first, _, last = asked.removeprefix("bytes=").partition("-")
                    size, start = len(body), int(first) if first else max(len(body) - int(last), 0)
                    stop = min(int(last) + 1, size) if first and last else size
                    status, body = 206, body[start:stop]
                    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault in ("break", "stall"):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                if fault == "stall":
                    served.released.wait(60)
                self.close_connection = True
                return
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *words: None  # type: ignore[method-assign]  # clients that went away
    served.url = f"http://127.0.0.1:{server.server_port}"
    with _running(server, served):
        yield served


@contextlib.contextmanager
def s3_server() -> Iterator[Served]:
    """An empty S3; `put_folder` fills it."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    served, backend = Served(url=""), DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start: Any) -> Any:
        path = urllib.parse.unquote(environ["PATH_INFO"])
        fault = None if environ.get("QUERY_STRING") else served.meets(environ["REQUEST_METHOD"], path)
        if fault is not None and fault.isdigit():
            start(f"{fault} Fault", [("Content-Length", "0")])
            return [b""]
        answer = backend(environ, start)
        if fault == "break":
            body = b"".join(answer)
            return [body[: len(body) // 2]]
        return answer

    class Handler(WSGIRequestHandler):
        def log(self, *words: Any) -> None:
            pass

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    with _running(server, served):
        yield served


@contextlib.contextmanager
def _running(server: Any, served: Served) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        served.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def put_folder(served: Served, bucket: str, folder: pathlib.Path, prefix: str = "", *, public: bool = True) -> None:
    """Makes the bucket and puts all files of a folder into it."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=served.url, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
    )
    acl = "public-read" if public else "private"
    client.create_bucket(Bucket=bucket, ACL=acl)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            key = f"{prefix}{file.relative_to(folder)}"
            client.put_object(Bucket=bucket, Key=key, Body=file.read_bytes(), ACL=acl)
    client.close()
