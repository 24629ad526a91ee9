"""Access to a server: which one, with which credentials, and with which timeouts.

obstore makes the requests: one small package without dependencies, for both S3 and HTTPS. (The alternative s3fs needs
aiobotocore, whose pinned botocore conflicts with that of many environments.)
"""

from __future__ import annotations

import configparser
import contextlib
import datetime
import functools
import http.client
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from obstore.store import HTTPStore, S3Store

from jaxcryo.errors import InputError
from jaxcryo.stores.address import Address

SILENCE_SECONDS = 30.0
"""Timeout of a connection that is silent."""
_LONGEST_REQUEST = datetime.timedelta(minutes=15)
_REGIONS = "https://{bucket}.s3.amazonaws.com"
_DEFAULT_REGION = "us-east-1"
_FROM_OUTSIDE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
"""Variables that obstore reads itself."""


def open_store(address: Address) -> S3Store | HTTPStore:
    """The store with the objects below an address.

    A bucket is read with the credentials of the environment or of the AWS profile, else anonymously; at
    `AWS_ENDPOINT_URL` if that is set.

    Raises:
        InputError: the profile that was asked for has no credentials.
    """
    client: Any = {
        "allow_http": True,
        "connect_timeout": datetime.timedelta(seconds=SILENCE_SECONDS),
        "read_timeout": datetime.timedelta(seconds=SILENCE_SECONDS),
        "timeout": _LONGEST_REQUEST,
    }
    once: Any = {"max_retries": 0}  # `Objects` tries again: also what breaks off halfway
    if address.scheme != "s3":
        return HTTPStore(address.url, client_options=client, retry_config=once)
    bucket, _, prefix = address.url.removeprefix("s3://").partition("/")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options["region"] = region or _DEFAULT_REGION if endpoint else region_of(bucket) or region or _DEFAULT_REGION
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options=client,
        retry_config=once,
        **options,
        **credentials(os.environ),
    )


def credentials(environment: Mapping[str, str]) -> dict[str, Any]:
    """Options of a store: of the variables, else of the profile's file, else that requests are not signed.

    Raises:
        InputError: `AWS_PROFILE` names a profile without keys.
    """
    if environment.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes"):
        return {"skip_signature": True}
    if any(environment.get(name) for name in _FROM_OUTSIDE):
        return {}
    profile = environment.get("AWS_PROFILE")
    file = pathlib.Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()
    parser = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
        parser.read_string(file.read_text(encoding="utf-8"))
    name = profile or "default"
    section: Mapping[str, str] = parser[name] if name in parser.sections() else {}
    key, secret = section.get("aws_access_key_id"), section.get("aws_secret_access_key")
    if key and secret:
        token = section.get("aws_session_token")
        return {"access_key_id": key, "secret_access_key": secret, **({"session_token": token} if token else {})}
    if profile:
        raise InputError(
            f"AWS_PROFILE is {profile!r}, which has no keys in {file}; put them into the environment with: "
            'eval "$(aws configure export-credentials --format env)"; or unset it to read public buckets'
        )
    return {"skip_signature": True}


@functools.cache
def region_of(bucket: str) -> str | None:
    """The region that Amazon says a bucket lies in; None where it says nothing."""
    request = urllib.request.Request(_REGIONS.format(bucket=bucket), method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=SILENCE_SECONDS) as answer:
            return answer.headers.get("x-amz-bucket-region")
    except urllib.error.HTTPError as refusal:  # a bucket that may not be listed, or lies elsewhere, is told of too
        with refusal:
            return refusal.headers.get("x-amz-bucket-region")
    except (OSError, http.client.HTTPException):
        return None
