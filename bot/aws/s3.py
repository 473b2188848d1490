"""Results in a private S3 bucket."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any
from urllib.parse import quote

from cachetools import LRUCache

from bot.aws.clients import Clients, translated, wanted
from bot.aws.config import AwsConfig
from bot.domain.errors import NotFound, Refused
from bot.domain.results import Link, Opened, Part, ResultFile, shown_as

PART = 8 * 2**20
"""Bytes of one part of a long file; S3 takes 10,000 parts."""
KEPT = 64 * 2**20
"""Bytes of parts of files that are kept in memory for whoever asks next."""
LONGEST_SESSION = 36 * 3600
"""Seconds that temporary keys last at most (API reference of STS, GetSessionToken)."""
REDIRECT = 300
"""Seconds for which an address works to which the bot sends a browser."""


class S3Results:
    """The port Results in one bucket. Links are signed: whoever has one may read one file until the link expires.

    A file is absent where S3 answers NoSuchKey; a refusal is any other code that S3 documents as the caller's mistake
    (see `translated`). Answers to HEAD have no code: AWS's id of the request shows that they are S3's. A 404 or
    403 without code and id, a list or a file that does not come as S3 sends it, and no answer are in doubt.
    """

    def __init__(self, *, config: AwsConfig, clients: Clients | None = None) -> None:
        self._config = config
        self._clients = clients or Clients(config)
        self._parts: LRUCache[tuple[str, int, int], Part] = LRUCache(KEPT, getsizeof=lambda part: len(part.content) + 1)
        self._lock = Lock()

    def uri(self, folder: str) -> str:
        """The folder's URI, `s3://bucket/folder/`."""
        return f"s3://{self._bucket}/{_key(folder)}/"

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

    def open(self, folder: str, name: str) -> Opened:
        """A file, read from S3 as it is asked for. Raises NotFound where it is absent."""
        key = _key(folder, name)
        with translated(f"S3 did not give the result {name}"):
            answer = self._clients.s3.get_object(Bucket=self._bucket, Key=key)
            wanted(answer, "ETag")
        return Opened(answer["ContentLength"], _Body(answer["Body"], name))

    def part(self, folder: str, name: str, start: int, length: int) -> Part:
        """`length` bytes of a file from byte `start` on. Raises NotFound where it is absent.

        KEPT bytes are remembered: a file that somebody looks at does not change any more.
        """
        asked = _key(folder, name), start, length
        with self._lock:
            known = self._parts.get(asked)
        if known:
            return known
        part = self._part(name, *asked)
        with self._lock:
            self._parts[asked] = part
        return part

    def _part(self, name: str, key: str, start: int, length: int) -> Part:
        from botocore.exceptions import ClientError

        with translated(f"S3 did not give the result {name}"):
            try:
                asked = f"bytes={start}-{start + length - 1}"
                answer = self._clients.s3.get_object(Bucket=self._bucket, Key=key, Range=asked)
            except ClientError as error:
                if error.response["Error"]["Code"] != "InvalidRange":
                    raise
                return Part(b"", self._clients.s3.head_object(Bucket=self._bucket, Key=key)["ContentLength"])
            with answer["Body"] as body:
                wanted(answer, "ETag")
                return Part(body.read(), int(answer["ContentRange"].rpartition("/")[2]))

    def link(self, folder: str, name: str) -> Link:
        """A signed address of one file, whether or not it exists; void once the signing credentials have expired."""
        return self._signed(_key(folder, name), seconds=self._config.link_lifetime)

    def redirect(self, folder: str, name: str) -> Link:
        """A signed address of one file for REDIRECT seconds, shown or saved by its name. Raises NotFound."""
        key = _key(folder, name)
        with translated(f"S3 did not give the result {name}"):
            wanted(self._clients.s3.head_object(Bucket=self._bucket, Key=key), "ETag")
        kind = shown_as(name)
        saved = f"attachment; filename*=utf-8''{quote(name.rpartition('/')[2], safe='')}"
        return self._signed(
            key,
            seconds=REDIRECT,
            ResponseContentType=kind or "application/octet-stream",
            ResponseContentDisposition="inline" if kind else saved,
            ResponseCacheControl="no-store",
        )

    def _signed(self, key: str, *, seconds: int, **more: str) -> Link:
        """The signed address. It ends with the signature, or with the credentials where they end before.

        Credentials that tell no end have one within LONGEST_SESSION all the same.
        """
        with translated("S3 could not sign a link"):
            untold = self._clients.untold_end
            seconds = min(seconds, LONGEST_SESSION) if untold else seconds
            before = self._clients.credentials_end()
            # Signed for this second or a later one, so the end told errs on the early side.
            expires = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds - 1)
            url = self._clients.s3.generate_presigned_url(
                "get_object", Params={"Bucket": self._bucket, "Key": key, **more}, ExpiresIn=seconds
            )
            after = self._clients.credentials_end()  # another thread may have renewed them meanwhile
        return Link(url=url, expires=min(end for end in (expires, before, after) if end), at_latest=untold)

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

    @property
    def _bucket(self) -> str:
        if not self._config.bucket:
            raise Refused("No bucket is set: set NOMADS_AWS_BUCKET.")
        return self._config.bucket


class _Body:
    """The body of an answer, with botocore's errors translated."""

    def __init__(self, body: Any, name: str) -> None:
        self._body = body
        self._name = name

    def read(self, size: int, /) -> bytes:
        """At most `size` further bytes; none at the end."""
        with translated(f"S3 did not give all of {self._name}"):
            return bytes(self._body.read(size))

    def close(self) -> None:
        """Give the connection back."""
        self._body.close()


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
