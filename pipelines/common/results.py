"""Where a run's files go: a folder or an S3 prefix. A file is there whole or not at all; results.json comes last."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Protocol, Self
from urllib.parse import unquote, urlsplit

from contract.program import RESULTS
from pipelines.common.csvs import Column
from pipelines.common.program import Failure, WrongRequest

_WITHIN = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
"""A name of a file that a run writes."""
PIECE = 2**20
"""Bytes that are copied at once."""
CRATE = "ro-crate-metadata.json"
"""The file that says what a run read, with what, and what it left."""


@dataclass(frozen=True)
class File:
    """A file that was written, as results.json announces it."""

    name: str
    title: str
    """A word or two, by which links to it are named."""
    about: str
    """A sentence that says what is in it."""
    media_type: str


@dataclass(frozen=True)
class Written:
    """A file as it was written; `size` in bytes, `sha256` in hexadecimal digits."""

    name: str
    size: int
    sha256: str

    @classmethod
    def of(cls, name: str, content: bytes) -> Written:
        """The file of that name and content."""
        return cls(name, len(content), hashlib.sha256(content).hexdigest())


class _Place(Protocol):
    def put(self, name: str, content: bytes, media_type: str) -> None:
        """Write a file, whole or not at all."""

    def copy(self, name: str, content: IO[bytes], media_type: str) -> None:
        """Write a file of what an open one holds, whole or not at all."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def get(self, name: str) -> bytes | None:
        """A file's content; None where there is no such file."""

    def names(self, folder: str) -> list[str]:
        """The names of all files below a folder, which ends with a slash."""

    def tidy(self) -> None:
        """Remove what a file has left that was not written to its end."""


@dataclass(frozen=True)
class Done:
    """What `Results.apart` have written, in order."""

    files: list[File]
    written: list[Written]


class Results:
    """A run's results at a URI, `file:///folder/` or `s3://bucket/key/`. Raises WrongRequest for any other URI.

    Construction removes an earlier run's results.json, and all files that its crate says the run has written, so that
    they are not taken for this run's, unless the files are those of a `part` of a run. Raises Failure where the place
    cannot be written to.
    """

    def __init__(self, uri: str, *, part: bool = False) -> None:
        self._place = _place(uri)
        self.columns: Mapping[str, Column] = {}
        """Further columns of every table."""
        self.files: list[File] = []
        self.written: list[Written] = []
        """All files so far, in order, announced or not."""
        if part:
            return
        self._place.remove(RESULTS)
        if written := _written_before(self._place.get(CRATE) or b""):
            for name in (*written, CRATE):
                self._place.remove(name)

    def add(self, name: str, content: bytes, *, title: str, about: str, media_type: str) -> bytes:
        """Write a file, announce it in results.json, and return the content written. Raises Failure.

        A folder of many files is announced by the one to be opened first, which is written last, such as `folder/info`.
        """
        self.put(name, content, media_type)
        self.announce(File(name, title, about, media_type))
        return content

    def stream(self, name: str, pieces: Iterable[bytes], *, title: str, about: str, media_type: str) -> None:
        """Write a file piece by piece, and announce it. Raises Failure."""
        digest, size = hashlib.sha256(), 0
        with tempfile.TemporaryFile() as spool:  # which leaves nothing, whatever ends this process meanwhile
            for piece in pieces:
                spool.write(piece)
                digest.update(piece)
                size += len(piece)
            spool.seek(0)
            self._place.copy(name, spool, media_type)
        self.written.append(Written(name, size, digest.hexdigest()))
        self.announce(File(name, title, about, media_type))

    def put(self, name: str, content: bytes, media_type: str = "application/octet-stream") -> None:
        """Write a file that results.json does not announce; a name with slashes makes folders. Raises Failure."""
        self._place.put(name, content, media_type)
        self.written.append(Written.of(name, content))

    def remove(self, name: str) -> None:
        """Remove an earlier run's file, if there is one. Raises Failure."""
        self._place.remove(name)

    def get(self, name: str) -> bytes | None:
        """A file's content; None where there is no such file. Raises Failure."""
        return self._place.get(name)

    def names(self, folder: str) -> list[str]:
        """The names of all files below a folder, which ends with a slash. Raises Failure."""
        return self._place.names(folder)

    def announce(self, file: File) -> None:
        """Have results.json name a file."""
        self.files.append(file)

    def apart(self) -> Self:
        """The same results for a copy of this process: what it writes is known here when `join` is told of it."""
        own = copy.copy(self)
        own.files, own.written = [], []
        return own

    @property
    def done(self) -> Done:
        """What was written so far."""
        return Done(self.files, self.written)

    def join(self, done: Done) -> None:
        """Take what was written by results that are `apart`."""
        self.files += done.files
        self.written += done.written

    def tidy(self) -> None:
        """Remove what a file has left that was not written to its end, since a copy of this process was ended."""
        self._place.tidy()

    def finish(self, summary: Mapping[str, Any], *, crate: Callable[[Sequence[Written]], bytes] | None = None) -> None:
        """Write results.json: the summary, and the files. Raises Failure.

        `crate` makes the crate, which is written right before, from all other files, results.json among them.
        """
        if crate:
            about = "What was read, with what, and what came of it, for programs and archives."
            self.announce(File(CRATE, "Crate", about, "application/ld+json"))
        files = [asdict(file) for file in self.files]
        content = (json.dumps({**summary, "files": files}, indent=2, ensure_ascii=False) + "\n").encode()
        if crate:
            self._place.put(CRATE, crate([*self.written, Written.of(RESULTS, content)]), "application/ld+json")
        self._place.put(RESULTS, content, "application/json")


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path, self._own = path, f".{secrets.token_hex(4)}-"
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Failure(f"The results folder cannot be made: {error.strerror}.") from None

    def put(self, name: str, content: bytes, media_type: str) -> None:
        self.copy(name, io.BytesIO(content), media_type)

    def copy(self, name: str, content: IO[bytes], media_type: str) -> None:
        try:
            (self._path / name).parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._path, prefix=self._own, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as out:
                    shutil.copyfileobj(content, out, PIECE)
                    out.flush()
                    os.fsync(out.fileno())  # no half file under this name, even after a power cut
                os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide it from a server of the folder
                os.replace(temporary, self._path / name)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise Failure(f"{name} cannot be written to the results folder: {error.strerror}.") from None

    def remove(self, name: str) -> None:
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as error:
            raise Failure(f"An earlier {name} cannot be removed: {error.strerror}.") from None

    def get(self, name: str) -> bytes | None:
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Failure(f"{name} cannot be read from the results folder: {error.strerror}.") from None

    def names(self, folder: str) -> list[str]:
        found = (path for path in (self._path / folder).rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(self._path).as_posix() for path in found)

    def tidy(self) -> None:
        for path in self._path.glob(f"{self._own}*.part"):
            path.unlink(missing_ok=True)


class _Bucket:
    def __init__(self, bucket: str, prefix: str) -> None:
        from boto3.exceptions import Boto3Error  # boto3 takes a fifth of a second, which only S3 needs
        from botocore.exceptions import BotoCoreError, ClientError

        self._bucket, self._prefix = bucket, prefix
        self._errors = (BotoCoreError, ClientError, Boto3Error)
        self._made: tuple[int, Any] = (0, None)
        try:
            self._client  # noqa: B018 - so that what cannot be used is told at once
        except self._errors as error:
            raise Failure(f"S3 cannot be used: {_aws(error)}.") from None

    @property
    def _client(self) -> Any:
        """This process's: a copy of it has to have connections of its own."""
        if self._made[0] != os.getpid():
            import boto3
            from botocore.config import Config

            config = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 5})
            self._made = os.getpid(), boto3.client("s3", config=config)
        return self._made[1]

    def put(self, name: str, content: bytes, media_type: str) -> None:
        try:
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content, ContentType=media_type)
        except self._errors as error:
            raise Failure(f"{name} cannot be written to s3://{self._bucket}: {_aws(error)}.") from None

    def copy(self, name: str, content: IO[bytes], media_type: str) -> None:
        try:  # in parts, where it is large: S3 takes no more than 5 GB at once
            self._client.upload_fileobj(
                content, self._bucket, self._prefix + name, ExtraArgs={"ContentType": media_type}
            )
        except self._errors as error:
            raise Failure(f"{name} cannot be written to s3://{self._bucket}: {_aws(error)}.") from None

    def remove(self, name: str) -> None:
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)
        except self._errors as error:
            raise Failure(f"s3://{self._bucket} cannot be written to: {_aws(error)}.") from None

    def get(self, name: str) -> bytes | None:
        try:
            content: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()
            return content
        except self._errors as error:
            # S3 denies what is not there to whoever may not list
            if _aws(error) in ("NoSuchKey", "404", "AccessDenied", "403"):
                return None
            raise Failure(f"{name} cannot be read from s3://{self._bucket}: {_aws(error)}.") from None

    def names(self, folder: str) -> list[str]:
        found: list[str] = []
        try:
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + folder):
                found += [entry["Key"].removeprefix(self._prefix) for entry in page.get("Contents", [])]
        except self._errors as error:
            raise Failure(f"s3://{self._bucket} cannot be listed: {_aws(error)}.") from None
        return sorted(found)

    def tidy(self) -> None:
        """Nothing is there before all of it is; S3 discards parts after the bucket's own rule."""


def _written_before(crate: bytes) -> list[str]:
    """The files that a run has written, by its crate; none where it is no crate of a run of NOMADS's.

    What else a person has put into the crate, or beside it, is theirs.
    """
    try:
        graph = {entity["@id"]: entity for entity in json.loads(crate)["@graph"]}
        run = graph["#run"]
        sums = {one["@id"]: graph[one["@id"]]["sha256"] for one in run["result"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    ours = run.get("@type") == "CreateAction" and all(isinstance(name, str) for name in sums)
    return [name for name in sums if _WITHIN.fullmatch(name) and ".." not in name.split("/")] if ours else []


def _place(uri: str) -> _Place:
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise WrongRequest("--results-uri is not an address.") from None
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return _Folder(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc and not parts.query and not parts.fragment:
        key = parts.path.strip("/")
        return _Bucket(parts.netloc, f"{key}/" if key else "")
    raise WrongRequest("--results-uri is neither s3://bucket/key/ nor file:///folder/.")


def _aws(error: Exception) -> str:
    """AWS's error code; AWS's messages may hold more than a user should see."""
    code = getattr(error, "response", {}).get("Error", {}).get("Code")
    return str(code or type(error).__name__)
