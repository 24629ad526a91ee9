"""Which credentials open a bucket, and where Amazon says that it lies."""

import contextlib
import http.server
import pathlib
import threading
from collections.abc import Iterator

import pytest

from jaxcryo.errors import InputError
from jaxcryo.stores import access
from jaxcryo.stores.access import credentials, region_of

ANONYMOUS = {"skip_signature": True}


@pytest.fixture
def file(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "credentials"
    path.write_text(
        "[default]\naws_access_key_id = D\naws_secret_access_key = %d\n"
        "[lab]\naws_access_key_id = L\naws_secret_access_key = l\naws_session_token = t\n[sso]\nsso_session = x\n"
    )
    return str(path)


def test_the_environment_goes_first(file: str) -> None:
    known = {"AWS_SHARED_CREDENTIALS_FILE": file}
    assert credentials(known) == {"access_key_id": "D", "secret_access_key": "%d"}
    assert credentials(known | {"AWS_ACCESS_KEY_ID": "E"}) == {}  # the store takes them itself
    assert credentials(known | {"AWS_ACCESS_KEY_ID": "E", "AWS_SKIP_SIGNATURE": "true"}) == ANONYMOUS
    lab = credentials(known | {"AWS_PROFILE": "lab"})
    assert lab == {"access_key_id": "L", "secret_access_key": "l", "session_token": "t"}


def test_without_credentials_nobody_asks(file: str, tmp_path: pathlib.Path) -> None:
    assert credentials({"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}) == ANONYMOUS
    for profile in ("sso", "unknown"):
        with pytest.raises(InputError, match=f"'{profile}'.*export-credentials"):
            credentials({"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_PROFILE": profile})


@contextlib.contextmanager
def amazon(status: int) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.send_response(status)
            self.send_header("x-amz-bucket-region", "us-west-2")
            self.end_headers()

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{{bucket}}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("status", [200, 403])
def test_the_region_is_asked_for(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with amazon(status) as place:
        monkeypatch.setattr(access, "_REGIONS", place)
        assert region_of(f"bucket-{status}") == "us-west-2"
    assert region_of(f"other-{status}") is None  # nobody answers
