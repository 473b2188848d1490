"""Small files of volumes, fetched under the admin's rules: allowed places only, a limit of bytes, and a deadline.

Nothing follows a redirect. A bucket is read without a signature first, as public data are, and with this machine's AWS
credentials where that is refused.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from volumes.address import Location
from volumes.errors import VolumeDamaged, VolumeRefused, VolumeUnavailable, WrongVolume, untrusted
from volumes.roots import Roots, addresses, path_of

MAX_DOCUMENT = 8 * 2**20
"""Bytes of the largest document that is read."""
MAX_LISTED = 1000
"""Subfolders that are listed, at most."""
CONNECT = 5.0
"""Seconds to wait for a connection."""
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_ABSENT = (404, 410)
"""Statuses that mean that there is nothing."""
PASSING = (408, 425, 429)
"""Statuses below 500 that may be another one later."""
_HIDDEN = (401, 403)
"""Statuses that a bucket may answer for what is not there, where the asker may not list it."""


@dataclass
class Bucket:
    """How a bucket of S3 is reached."""

    region: str = ""
    """Empty: not known yet."""
    signed: bool = False
    """Whether requests need a signature."""


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass
class Fetched:
    """Documents over the network and from files. Methods return or raise by `deadline`; safe in several threads.

    `deadline` is on the monotonic clock.
    """

    roots: Roots
    deadline: float
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    buckets: dict[str, Bucket] = field(default_factory=dict)
    """What was learned of buckets, by name."""
    refused: bool = False
    """Whether something was refused that may not exist either."""

    def read(self, place: Location) -> bytes | None:
        """As volumes.metadata.Documents."""
        self.roots.check(place)
        if place.scheme == "file":
            return _file(place)
        answer = self._get(place)
        if answer.status == 200:
            return answer.body
        if answer.status in _ABSENT:
            return None
        if answer.status in _HIDDEN:
            self.refused = True
            return None
        raise _failed(place, answer.status)

    def names(self, folder: Location) -> list[str] | None:
        """As volumes.metadata.Documents."""
        self.roots.check(folder)
        if folder.scheme == "file":
            return _folders(folder)
        if folder.scheme not in ("s3", "gs"):
            return None
        prefix = f"{folder.path}/" if folder.path else ""
        query = f"delimiter=%2F&list-type=2&max-keys={MAX_LISTED}&prefix={quote(prefix, safe='')}"
        answer = self._get(Location(folder.scheme, folder.host, ""), query=query)
        if answer.status != 200:
            self.refused = self.refused or answer.status in _HIDDEN
            return None
        return _listed(answer.body, prefix)

    def bucket(self, name: str) -> Bucket:
        """What is known of a bucket of S3."""
        return self.buckets.setdefault(name, Bucket())

    @property
    def own_endpoint(self) -> str:
        """The address of an S3 that is not AWS's, as AWS's own tools are told it; empty: there is none."""
        own = self.environ.get("AWS_ENDPOINT_URL_S3") or self.environ.get("AWS_ENDPOINT_URL") or ""
        return own.rstrip("/")

    def endpoint(self, bucket: str) -> str:
        """The URL below which the bucket's objects lie: AWS's, or that of AWS_ENDPOINT_URL_S3."""
        known = self.bucket(bucket)
        if self.own_endpoint:
            return f"{self.own_endpoint}/{bucket}"
        where = f"s3.{known.region}.amazonaws.com" if known.region else "s3.amazonaws.com"
        return f"https://{where}/{bucket}" if "." in bucket else f"https://{bucket}.{where}"

    @property
    def _google(self) -> str:
        """Below which Google's buckets lie, or those of what stands in for it, as Google's own tools are told it."""
        own = self.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
        return own if "://" in own else f"http://{own}" if own else "https://storage.googleapis.com"

    def url(self, place: Location) -> str:
        """The URL at which the place is read."""
        if place.scheme == "s3":
            return f"{self.endpoint(place.host)}/{quote(place.path)}"
        if place.scheme == "gs":
            return f"{self._google}/{place.host}/{quote(place.path)}"
        return place.url

    def _get(self, place: Location, *, query: str = "") -> _Answer:
        answer = self._ask(place, query)
        if place.scheme != "s3":
            return answer
        known, region = self.bucket(place.host), answer.headers.get("x-amz-bucket-region", "")
        if answer.status in (301, 307, 400) and _REGION.fullmatch(region) and region != known.region:
            known.region = region
            answer = self._ask(place, query)
        if answer.status in _HIDDEN and not known.signed and self._credentials:
            known.signed = True
            signed = self._ask(place, query)
            if signed.status in _HIDDEN:
                known.signed = False
            return signed
        return answer

    def _ask(self, place: Location, query: str) -> _Answer:
        url = self.url(place) + (f"?{query}" if query else "")
        headers = {"Accept-Encoding": "identity", "User-Agent": "nomads"}
        if place.scheme == "s3" and self.bucket(place.host).signed:
            headers |= self._signature(url, self.bucket(place.host).region or "us-east-1")
        return get(url, headers=headers, deadline=self.deadline)

    @cached_property
    def _credentials(self) -> Any:
        """This machine's AWS credentials; None where there are none."""
        try:
            from botocore.session import get_session
        except ImportError:
            return None
        return get_session().get_credentials()

    def _signature(self, url: str, region: str) -> dict[str, str]:
        """The headers that sign a GET for S3."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        request = AWSRequest(method="GET", url=url)
        S3SigV4Auth(self._credentials, "s3", region).add_auth(request)
        return dict(request.headers)


def get(url: str, *, headers: Mapping[str, str], deadline: float) -> _Answer:
    """GET a URL, which must not be longer than MAX_DOCUMENT. Raises VolumeError."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = parts.hostname or ""
    left = deadline - time.monotonic()
    if left <= 0:
        raise VolumeUnavailable(f"{host} did not answer in time.")
    try:
        connection = _connected(parts.scheme, host, port, min(CONNECT, left))
        with _until(connection, deadline):
            try:
                connection.request(
                    "GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers=dict(headers)
                )
                response = connection.getresponse()
                body = response.read(MAX_DOCUMENT + 1)
            finally:
                connection.close()
    except ssl.SSLCertVerificationError:
        raise untrusted(host) from None
    except (OSError, http.client.HTTPException):
        late = time.monotonic() >= deadline
        raise VolumeUnavailable(f"{host} did not answer in time." if late else f"{host} cannot be reached.") from None
    if response.getheader("Content-Encoding", "").lower() == "gzip":  # stored so in S3, whatever was asked for
        body = _unpacked(body)
    if len(body) > MAX_DOCUMENT:
        raise WrongVolume(f"A document of this volume has more than {MAX_DOCUMENT // 2**20} MiB.")
    if response.length or time.monotonic() >= deadline:
        raise VolumeUnavailable(f"The answer of {host} broke off.")
    return _Answer(response.status, body, {name.lower(): value for name, value in response.getheaders()})


def _unpacked(body: bytes) -> bytes:
    """What is packed with gzip, cut beyond MAX_DOCUMENT. Raises VolumeDamaged."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, MAX_DOCUMENT + 1)
    except zlib.error:
        raise VolumeDamaged("A document of this volume is damaged: it cannot be unpacked.") from None


def _connected(scheme: str, host: str, port: int, timeout: float) -> http.client.HTTPConnection:
    """A connection to an address of the host that was checked, so that no later look-up leads elsewhere."""
    last: OSError | None = None
    for _, address in addresses(host, port):
        try:
            line = socket.create_connection((address, port), timeout)
        except OSError as error:
            last = error
            continue
        connection = http.client.HTTPConnection(host, port)
        if scheme == "https":
            line = ssl.create_default_context().wrap_socket(line, server_hostname=host)
        connection.sock = line
        return connection
    raise last or OSError("no address")


@contextmanager
def _until(connection: http.client.HTTPConnection, deadline: float) -> Iterator[None]:
    """Break the connection at the deadline: a timeout of a socket begins anew with each byte."""

    def end() -> None:
        with suppress(OSError, AttributeError):
            connection.sock.shutdown(socket.SHUT_RDWR)

    connection.sock.settimeout(None)
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _failed(place: Location, status: int) -> VolumeUnavailable | WrongVolume:
    if 300 <= status < 400:
        return WrongVolume(f"{place.host} sends NOMADS to another address, where it does not go; use that address.")
    if status in PASSING or status >= 500:
        return VolumeUnavailable(f"{place.host} answered with status {status}.")
    return WrongVolume(f"{place.host} answered with status {status} when asked for {place.name}; check the address.")


def _file(place: Location) -> bytes | None:
    try:
        with open(path_of(place), "rb", opener=_plain) as file:
            content = file.read(MAX_DOCUMENT + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise VolumeRefused(f"{place.name} of this volume cannot be read: {error.strerror}.") from None
    if len(content) > MAX_DOCUMENT:
        raise WrongVolume(f"A document of this volume has more than {MAX_DOCUMENT // 2**20} MiB.")
    return content


def _plain(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe in a document's place would never end


def _folders(folder: Location) -> list[str] | None:
    try:
        with os.scandir(path_of(folder)) as found:
            return sorted(entry.name for entry in found if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise VolumeRefused(f"The folder {folder.name} cannot be read: {error.strerror}.") from None


def _listed(body: bytes, prefix: str) -> list[str]:
    """The folders in a bucket's listing."""
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        return []
    try:
        tree = ElementTree.fromstring(body)  # noqa: S314  without entities, which were refused
    except ElementTree.ParseError:
        return []
    found = [text.text or "" for text in tree.iterfind("{*}CommonPrefixes/{*}Prefix")]
    return sorted(name.removeprefix(prefix).strip("/") for name in found)
