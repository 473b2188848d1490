"""Addresses of volumes: a format, and where the volume lies.

    boss://api.bossdb.io/collection/experiment
    precomputed://s3://bucket/volume            Neuroglancer's format
    zarr://https://host/volume.zarr             OME-Zarr 0.4 and 0.5
    n5://file:///data/volume.n5

`#level` at the end names a level of a multiscale volume; without it the finest is taken. `#c=1` takes one channel of
several in an array, counted from 0; `#level,c=1` says both. `…/{PSD95,Synapsin}` names the
datasets of a folder that holds one for each channel; without it they are listed, which not every server allows.
`channels://PSD95=zarr://…;Synapsin=n5://…` puts a volume together of channels that lie apart.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote, urlsplit

from contract.names import is_name, short
from volumes.errors import WrongVolume

FORMATS = {
    "precomputed": "precomputed",
    "neuroglancer-precomputed": "precomputed",
    "zarr": "zarr",
    "zarr2": "zarr",
    "zarr3": "zarr",
    "n5": "n5",
}
"""The formats by the words that people write for them."""
SCHEMES = ("s3", "gs", "https", "http", "file")
"""Where a volume may lie."""
APART = "channels"
"""The format of a volume whose channels lie apart."""
MAX_ADDRESS = 1000
"""Characters of the longest address taken."""
MAX_APART = 16
"""Channels of an address whose channels lie apart, at most."""
MAX_STEM = 60
"""Characters of a volume's name that the names of its results begin with, at most."""
_LINK = re.compile(r"<([^<>|]*)(?:\|[^<>]*)?>")
"""How chats write an address that they take for a link."""
_AUTHORITY = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_CHANNEL = re.compile(r"[A-Za-z0-9_.-]+")
_EXAMPLE = "an address looks like zarr://s3://bucket/volume.zarr or precomputed://https://host/volume"


@dataclass(frozen=True, order=True)
class Location:
    """A place in a bucket, on a web server, or on this machine."""

    scheme: str
    host: str
    """Host with port, or bucket; empty for files."""
    path: str
    """Segments with slashes between them, decoded, without one at either end; never with `.` or `..`."""

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read a URL of one of SCHEMES. Raises WrongVolume, whose text says what is wrong with it."""
        try:
            parts = urlsplit(text)
            parts.port  # noqa: B018  raises for a wrong port
        except ValueError:
            raise WrongVolume(f"{short(text, 80)} is no address: {_EXAMPLE}.") from None
        scheme = parts.scheme.lower()
        if scheme not in SCHEMES:
            raise WrongVolume(f"{short(text, 80)} is in none of {', '.join(f'{one}://' for one in SCHEMES)}.")
        if parts.query or "@" in parts.netloc:
            raise WrongVolume("An address of a volume has no user, password or query.")
        host = parts.netloc if scheme in ("s3", "gs") else parts.netloc.lower()
        if scheme == "file":
            if host not in ("", "localhost"):
                raise WrongVolume("A file:// address names no host: file:///folder/volume.")
            host = ""
        elif not _AUTHORITY.fullmatch(host):
            raise WrongVolume(f"{short(text, 80)} names no {'bucket' if scheme in ('s3', 'gs') else 'host'}.")
        return cls(scheme, host, _segments(unquote(parts.path)))

    @property
    def url(self) -> str:
        """The URL, percent-encoded where it has to be, without a slash at its end."""
        return f"{self.scheme}://{self.host}/{quote(self.path)}".rstrip("/") or f"{self.scheme}:///"

    @property
    def name(self) -> str:
        """The last segment; for a place without any, the host."""
        return self.path.rpartition("/")[2] or self.host

    @property
    def parent(self) -> Location | None:
        """The folder that holds the place; None for the top."""
        return replace(self, path=self.path.rpartition("/")[0]) if self.path else None

    def child(self, path: str) -> Location:
        """A place below. Raises WrongVolume for a path that leads elsewhere, as a volume's own metadata may say."""
        return replace(self, path=_segments(f"{self.path}/{path}"))

    def within(self, folder: Location) -> bool:
        """Whether the place is `folder` or below it, by its name."""
        same = (self.scheme, self.host) == (folder.scheme, folder.host)
        return same and (not folder.path or self.path == folder.path or self.path.startswith(f"{folder.path}/"))

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, kw_only=True)
class Address:
    """A volume that is not BOSS's."""

    format: str
    """`precomputed`, `zarr`, `n5`, or `channels`."""
    location: Location
    channels: tuple[str, ...] = ()
    """The datasets, below the location, that are the channels; empty: the location says."""
    level: str = ""
    """The level of a multiscale volume: its path or key; empty: the finest."""
    channel: int | None = None
    """The one channel that is taken of an array with several, from 0; None: all."""
    parts: tuple[tuple[str, Address], ...] = ()
    """Of the format `channels`: each channel's name and address; `location` is the first one's."""

    @property
    def locations(self) -> tuple[Location, ...]:
        """All places that the address names."""
        return tuple(part.location for _, part in self.parts) or (self.location,)

    def __str__(self) -> str:
        """The address in the one form in which it is kept and compared."""
        if self.parts:
            return f"{APART}://" + ";".join(f"{name}={part}" for name, part in self.parts)
        channels = f"/{{{','.join(self.channels)}}}" if self.channels else ""
        said = [*([self.level] if self.level else []), *([] if self.channel is None else [f"c={self.channel}"])]
        return f"{self.format}://{self.location.url}{channels}" + (f"#{','.join(said)}" if said else "")

    @property
    def stem(self) -> str:
        """A name in BOSS's alphabet that people recognise the volume by; two volumes may share one."""
        plain = re.sub(r"(\.ome)?\.(zarr|n5)$", "", self.location.name)
        return re.sub(r"[^A-Za-z0-9-]+", "_", plain)[:MAX_STEM].strip("_-") or "volume"

    @property
    def digest(self) -> str:
        """Twelve characters that tell this address from every other one."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class BossAddress:
    """An experiment of a BOSS."""

    protocol: str = field(default="https")
    host: str
    collection: str
    experiment: str


def is_address(text: str) -> bool:
    """Whether a text is meant as an address, right or wrong, rather than as a name."""
    return "://" in text


def parse(text: str) -> Address | BossAddress:
    """Read what a person typed or pasted. Raises WrongVolume, whose text says what is wrong."""
    text = _LINK.sub(r"\1", text.strip())
    if text.startswith(f"{APART}://"):
        return _apart(text.removeprefix(f"{APART}://"))
    if len(text) > MAX_ADDRESS:
        raise WrongVolume(f"This address has {len(text)} characters; {MAX_ADDRESS} is the most.")
    if any(not c.isprintable() or c in ' \\"' for c in text):
        raise WrongVolume("This address has a space or another character that no address has; write a space as %20.")
    word, found, rest = text.partition("://")
    if word.lower() == "boss" and found:
        return _boss(rest)
    if word.lower() not in FORMATS or not found:
        said = f"“{short(word, 40)}” is no format" if found else f"“{short(text, 40)}” is no address"
        raise WrongVolume(f"{said}; there is boss, precomputed, zarr and n5: {_EXAMPLE}.")
    rest, _, said = rest.partition("#")
    rest, channels = _channels(rest)
    level, channel = _said(said)
    return Address(
        format=FORMATS[word.lower()], location=Location.parse(rest), channels=channels, level=level, channel=channel
    )


def _said(text: str) -> tuple[str, int | None]:
    """Level and channel of what stands after the #."""
    level, _, channel = text.rpartition(",") if "," in text else ("", "", text) if text[:2] == "c=" else (text, "", "")
    if level and not _is_level(level):
        raise WrongVolume(f"“{short(level, 40)}” is no level of a volume; after # stands its name, such as #1.")
    if channel and not re.fullmatch(r"c=[0-9]{1,5}", channel):
        raise WrongVolume(f"“{short(channel, 40)}” is no channel of an array; they are counted from 0, such as #c=1.")
    return level.strip("/"), int(channel[2:]) if channel else None


def _apart(rest: str) -> Address:
    """The address of a volume whose channels lie apart."""
    parts = list[tuple[str, Address]]()
    for word in rest.split(";"):
        name, equals, text = word.partition("=")
        if not equals or not is_name(name) or name in dict(parts):
            raise WrongVolume("Channels that lie apart are named: channels://PSD95=zarr://…;Synapsin=n5://….")
        part = parse(text)
        if not isinstance(part, Address) or part.parts or part.channels:
            raise WrongVolume(f"The channel {short(name)} needs the address of one dataset that is not BOSS's.")
        parts.append((name, part))
    if len(parts) > MAX_APART:
        raise WrongVolume(f"This address has {len(parts)} channels; {MAX_APART} is the most.")
    return Address(format=APART, location=parts[0][1].location, parts=tuple(parts))


def _boss(rest: str) -> BossAddress:
    protocol = "https"
    if rest.startswith(("http://", "https://")):
        protocol, _, rest = rest.partition("://")
    parts = rest.strip("/").split("/")
    if len(parts) != 3 or not _AUTHORITY.fullmatch(parts[0]) or not all(parts):
        raise WrongVolume("An address of BOSS is boss://host/collection/experiment.")
    return BossAddress(protocol=protocol, host=parts[0], collection=parts[1], experiment=parts[2])


def _channels(rest: str) -> tuple[str, tuple[str, ...]]:
    """The address without `{…}` at its end, and the names in it."""
    if "{" not in rest and "}" not in rest:
        return rest, ()
    found = re.fullmatch(r"([^{}]+)/\{([^{}]*)\}/?", rest)
    names = tuple(name for name in (found[2].split(",") if found else ()) if name)
    if not found or not names or not all(map(_CHANNEL.fullmatch, names)) or {".", ".."} & {*names}:
        raise WrongVolume("Channels stand at the end of an address: …/volume/{PSD95,Synapsin}.")
    if len(set(names)) < len(names):
        raise WrongVolume("A channel stands twice between the braces of this address.")
    return found[1], names


def _is_level(level: str) -> bool:
    parts = level.strip("/").split("/")
    return all(re.fullmatch(r"[A-Za-z0-9_.-]+", part) and part not in (".", "..") for part in parts)


def _segments(path: str) -> str:
    parts = [part for part in path.split("/") if part]
    if any(part in (".", "..") or not part.isprintable() or "\\" in part for part in parts):
        raise WrongVolume("A part of this address leads elsewhere: . and .. have no place in it.")
    return "/".join(parts)
