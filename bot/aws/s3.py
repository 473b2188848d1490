"""Results in a private S3 bucket."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from bot.aws.clients import Clients, translated, wanted
from bot.aws.config import AwsConfig
from bot.domain.errors import NotFound, Refused
from bot.domain.results import Link, ResultFile

PART = 8 * 2**20
"""Bytes of one part of a long file; S3 takes 10,000 parts."""


class S3Results:
    """The port Results in one bucket. Links are signed: whoever has one may read one file until the link expires.

    A file is absent where S3 answers NoSuchKey; a refusal is any other code that S3 documents as the caller's mistake
    (see `translated`). A 404 or 403 without such a code, a list or a file that does not come as S3 sends it, and no
    answer are in doubt.
    """

    def __init__(self, *, config: AwsConfig, clients: Clients | None = None) -> None:
        self._config = config
        self._clients = clients or Clients(config)

    def uri(self, folder: str) -> str:
        """The folder's URI, `s3://bucket/folder/`."""
        return f"s3://{self._bucket}/{_key(folder)}/"

    def address(self, folder: str) -> str:
        """The folder's address in the S3 console, for people who may sign in to the account."""
        prefix = quote(f"{_key(folder)}/", safe="")
        return f"{self._clients.console}/s3/buckets/{self._bucket}?region={self._clients.region}&prefix={prefix}"

    def list(self, folder: str) -> list[ResultFile]:
        """The folder's files, by name; empty where there is no such folder."""
        prefix = f"{_key(folder)}/"
        with translated("S3 did not list the results"):
            pages = self._clients.s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            files = [
                ResultFile(name=item["Key"].removeprefix(prefix), size=item["Size"])
                for page in pages
                if wanted(page, "KeyCount") is not None  # so that no other answer passes for an empty folder
                for item in page.get("Contents", ())
                if not item["Key"].endswith("/")  # the S3 console makes such keys to show empty folders
            ]
        return sorted(files, key=lambda file: file.name)

    def read(self, folder: str, name: str, *, limit: int) -> bytes:
        """A file's content. Raises NotFound where it is absent and Refused where it has more than `limit` bytes."""
        key = _key(folder, name)
        with translated(f"S3 did not give the result {name}"):
            answer = self._clients.s3.get_object(Bucket=self._bucket, Key=key)
            with answer["Body"] as body:
                wanted(answer, "ETag")  # which no proxy's page has
                if answer["ContentLength"] > limit:
                    raise Refused(f"{name} has {answer['ContentLength']} bytes; at most {limit} are read.")
                return body.read()

    def link(self, folder: str, name: str) -> Link:
        """A signed address of one file, whether or not it exists; void once the signing credentials have expired."""
        lifetime = timedelta(seconds=self._config.link_lifetime)
        with translated("S3 could not sign a link"):
            url = self._clients.s3.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._bucket, "Key": _key(folder, name)},
                ExpiresIn=self._config.link_lifetime,
            )
            # Signed for this second or an earlier one, so `expires` errs on the early side.
            expires = datetime.now(UTC).replace(microsecond=0) + lifetime - timedelta(seconds=1)
            credentials_end = self._credentials_end()
        return Link(url=url, expires=min(expires, credentials_end) if credentials_end else expires)

    def write(self, folder: str, name: str, content: Iterable[bytes]) -> None:
        """Write a file, in parts if it is long, with one part in memory at a time. A `.txt` is served as UTF-8."""
        key = _key(folder, name)
        with translated(f"S3 did not take {name}"):
            from boto3.s3.transfer import TransferConfig

            body: Any = _Stream(content)
            self._clients.s3.upload_fileobj(
                body,
                self._bucket,
                key,
                ExtraArgs={"ContentType": "text/plain; charset=utf-8"} if name.endswith(".txt") else None,
                Config=TransferConfig(multipart_chunksize=PART, multipart_threshold=PART, use_threads=False),
            )

    def _credentials_end(self) -> datetime | None:
        """When the credentials in use expire; None where they do not, or botocore does not tell."""
        credentials: Any = self._clients.session.get_credentials()
        end = getattr(credentials, "_expiry_time", None)  # botocore has no public name for it
        return end.astimezone(UTC) if isinstance(end, datetime) else None

    @property
    def _bucket(self) -> str:
        if not self._config.bucket:
            raise Refused("No bucket is set: set NOMADS_AWS_BUCKET.")
        return self._config.bucket


class _Stream:
    """An iterator of pieces, read as a file that cannot seek."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = bytearray()

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, or all (-1); fewer only at the end."""
        while (size < 0 or len(self._held) < size) and (piece := next(self._pieces, None)) is not None:
            self._held += piece
        taken = bytes(self._held[:size] if size >= 0 else self._held)
        del self._held[: len(taken)]
        return taken


def _key(folder: str, name: str | None = None) -> str:
    """The object's key. Parts that are empty or dots are refused: S3 takes them literally, browsers do not."""
    parts = [*folder.strip("/").split("/"), *(name.split("/") if name is not None else ())]
    if any(part in ("", ".", "..") for part in parts):
        raise NotFound("There is no result of that name.")
    return "/".join(parts)
