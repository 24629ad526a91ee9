"""A double of the CryoET Data Portal's API, made from the schema that its client ships."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import pathlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import cryoet_data_portal
import graphql

_SCHEMA = pathlib.Path(cryoet_data_portal.__file__).parent / "data" / "schema.graphql"
_FILLING: dict[str, Any] = {"Int": 0, "Float": 0.0, "String": "", "Boolean": False, "DateTime": "2024-01-01T00:00:00"}


@dataclasses.dataclass(kw_only=True)
class Double:
    """What the portal has, by the names of its queries; relations are nested records."""

    url: str = ""
    records: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    questions: int = 0
    broken: bool = False


def is_meant(record: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether a filter of the portal's API lets a record pass."""
    return all(
        record[key] == condition["_eq"] if "_eq" in condition else is_meant(record[key], condition)
        for key, condition in where.items()
    )


@contextlib.contextmanager
def portal_double() -> Iterator[Double]:
    double = Double()
    schema = graphql.build_schema(_SCHEMA.read_text())

    def resolve(source: Any, info: graphql.GraphQLResolveInfo, **arguments: Any) -> Any:
        if info.parent_type.name == "Query":
            return [r for r in double.records.get(info.field_name, []) if is_meant(r, arguments.get("where") or {})]
        if info.field_name in source:
            return source[info.field_name]
        kind = info.return_type
        if not isinstance(kind, graphql.GraphQLNonNull):
            return None
        named = graphql.get_named_type(kind)
        return next(iter(named.values)) if isinstance(named, graphql.GraphQLEnumType) else _FILLING[named.name]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None:
            pass

        def do_POST(self) -> None:
            double.questions += 1
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            result = graphql.graphql_sync(
                schema, asked["query"], variable_values=asked.get("variables"), field_resolver=resolve
            )
            answer = {"errors": [{"message": "out of order"}]} if double.broken else result.formatted
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    double.url = f"http://127.0.0.1:{server.server_port}/graphql"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
