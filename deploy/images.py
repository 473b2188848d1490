"""`python -m deploy.images [NAME …]`: build the images, each with a bill of materials beside it, in var/images.

With Docker where an engine answers, with buildah and chroot isolation where none does. On the base image that
deploy/bases.env pins; where that cannot be had, buildah builds on a base of Debian's own packages.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy import bases, sbom

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "var" / "images"
DEBIAN = "localhost/nomads-debian:bookworm"
"""The base that stands in for the pinned one."""
_DEBOOTSTRAP = (
    *("mmdebstrap", "--quiet", "--variant=minbase"),
    "--include=python3,python3-venv,python3-pip,ca-certificates",
)
_DEBIAN_STEPS = """
FROM scratch
ADD base.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""
PULL_SECONDS = 300
"""How long the pinned base image may take to arrive; it has about 50 MB."""
_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_HANDED_OVER = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
"""Settings of pip that say where packages come from."""
Engine = Literal["docker", "buildah"]


class CannotBuild(Exception):
    """What is missing or failed, in words for whoever builds."""


@dataclass(frozen=True)
class Image:
    """An image of ours: how it is called, the build target that makes it, and the locks that are installed in it."""

    name: str
    dockerfile: str
    target: str
    locks: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """What came of it: the image's id, which its content alone determines, its bytes, and the seconds it took."""

    image: Image
    id: str
    size: int
    seconds: float
    tag: str = ""
    """What it was to be called, where that is not its name alone."""


def images() -> list[Image]:
    """The bot's images, and one for each pipeline that has a target of its own."""
    found = [
        Image("nomads", "Dockerfile", "bot", ("bot",)),
        Image("nomads-local", "Dockerfile", "local", ("bot", "pipelines")),
    ]
    for target in re.findall(r"^FROM base AS (\S+)$", (ROOT / "pipelines/Dockerfile").read_text("utf-8"), re.MULTILINE):
        entry = tomllib.loads((ROOT / "pipelines" / target / "pipeline.toml").read_text("utf-8"))
        found.append(Image(entry["name"], "pipelines/Dockerfile", target, ("pipelines",)))
    return found


def engine() -> Engine:
    """What builds here. Raises CannotBuild where nothing does."""
    if shutil.which("docker") and _succeeds("docker", "info", "--format", "{{.ServerVersion}}"):
        return "docker"
    if shutil.which("buildah"):
        return "buildah"
    raise CannotBuild(
        "There is neither a Docker engine nor buildah here. On Debian: apt-get install buildah mmdebstrap"
    )


def base_image(engine: Engine, *, fresh: bool, pushed: bool = False) -> str:
    """The base to build on: the pinned one where it can be had, which Docker itself sees to, else Debian's packages.

    Raises CannotBuild for an image that is to be `pushed`, which is built on the pinned one or not at all.
    """
    pinned = bases.read(bases.FILE.read_text(encoding="utf-8"))["PYTHON_IMAGE"]
    if engine == "docker":
        return pinned
    name, _, digest = pinned.partition("@")
    repository = f"docker.io/library/{name.rpartition(':')[0]}@{digest}"
    if _succeeds("buildah", "inspect", "--type", "image", repository) or _succeeds(
        "buildah", "pull", "--quiet", repository, seconds=PULL_SECONDS
    ):
        return repository
    if pushed:
        raise CannotBuild(f"The base image {pinned} cannot be had, and what is pushed is built on no other.")
    print(f"The pinned base image cannot be had ({name}): Debian's own packages stand in for it.", flush=True)
    if fresh or not _succeeds("buildah", "inspect", "--type", "image", DEBIAN):
        _make_debian()
    return DEBIAN


def _make_debian() -> None:
    """A base of Debian's packages, which knows nothing of the machine that made it."""
    if not shutil.which("mmdebstrap"):
        raise CannotBuild("mmdebstrap is missing, which makes a base image of Debian's packages: apt-get install it.")
    with tempfile.TemporaryDirectory(prefix="nomads-base-") as folder:
        forget = 'rm -f "$1/etc/resolv.conf" "$1/etc/hostname" "$1/etc/machine-id"'
        _run([*_DEBOOTSTRAP, f"--customize-hook={forget}", "bookworm", f"{folder}/base.tar"], SOURCE_DATE_EPOCH="0")
        (Path(folder) / "Containerfile").write_text(_DEBIAN_STEPS, encoding="utf-8")
        _run(["buildah", "bud", "--quiet", "--timestamp", "0", "--tag", DEBIAN, folder])


def build(image: Image, engine: Engine, base: str, *, fresh: bool = False, platform: str = "", tag: str = "") -> Built:
    """Build one image; `fresh`: every step anew. Raises CannotBuild where a step fails.

    `platform` is such as `linux/arm64`, by default this machine's; `tag` is by default the image's name.
    """
    began, name = time.monotonic(), tag or image.name
    with tempfile.TemporaryDirectory(prefix="nomads-pip-") as secrets:
        command = {
            "docker": ["docker", "build", "--provenance=false", "--build-arg", "SOURCE_DATE_EPOCH=0"],
            "buildah": ["buildah", "bud", "--isolation=chroot", "--network=host", "--layers", "--timestamp=0"],
        }[engine]
        identity = Path(secrets) / "id"
        command += ["--file", image.dockerfile, "--target", image.target, "--tag", name]
        command += ["--platform", platform] if platform else []
        command += ["--build-arg", f"PYTHON_IMAGE={base}", "--iidfile", str(identity), *_pip_secrets(Path(secrets))]
        _run([*command, *(["--no-cache"] if fresh else []), "."])
        made = identity.read_text(encoding="utf-8").strip()
    return Built(image, made, size(name, engine), time.monotonic() - began, tag)


def _pip_secrets(folder: Path) -> list[str]:
    """Pip's settings of this machine as build secrets, which no layer keeps. Folders of this machine are left out."""
    said = _run([sys.executable, "-m", "pip", "config", "list"])
    return pip_secrets(said, folder)


def pip_secrets(settings: str, folder: Path) -> list[str]:
    """Options that hand over what `pip config list` said; a folder or file of this machine is not there in a build."""
    kept: dict[str, str] = {}
    secrets = []
    lines = [line.partition("=") for line in settings.splitlines() if "=" in line]
    for name, _, quoted in sorted(lines, key=lambda line: line[0].startswith(":env:")):  # the environment has its say
        section, _, key = name.partition(".")
        value = str(ast.literal_eval(quoted))
        if section not in ("global", "install", ":env:"):
            continue
        if key == "cert":
            secrets = ["--secret", f"id=ca,src={value}"]
            kept[key] = "/run/secrets/ca"
        elif key in _HANDED_OVER and (there := [word for word in value.split() if not word.startswith("file:")]):
            kept[key] = " ".join(there)
    file = folder / "pip.conf"
    file.touch(mode=0o600)
    file.write_text("\n".join(["[global]", *(f"{key} = {value}" for key, value in kept.items()), ""]), encoding="utf-8")
    return [*secrets, "--secret", f"id=pip,src={file}"]


def size(tag: str, engine: Engine) -> int:
    """Bytes of all layers, unpacked; buildah tells three digits of them."""
    if engine == "docker":
        return int(_run(["docker", "image", "inspect", "--format", "{{.Size}}", tag]))
    lines = _run(["buildah", "images", "--format", "{{.Size}}", tag]).splitlines()
    number, unit = lines[0].split()  # a line for each name that the image has
    return int(float(number) * _UNITS[unit])


def inside(built: Built, engine: Engine, *command: str) -> str:
    """What a command prints in the image."""
    if engine == "docker":
        return _run(["docker", "run", "--rm", "--network=none", f"--entrypoint={command[0]}", built.id, *command[1:]])
    container = _run(["buildah", "from", "--pull-never", built.id]).strip()
    try:
        return _run(["buildah", "run", "--isolation=chroot", container, "--", *command])
    finally:
        _run(["buildah", "rm", container])


def bill(image: Image, tag: str = "", *, folder: Path = FOLDER) -> Path:
    """Where an image's bill of materials lies; one that was built under a tag of its own has another one for each."""
    return folder / f"{_stem(image, tag)}.cdx.json"


def _stem(image: Image, tag: str) -> str:
    version = tag.rpartition("/")[2].partition(":")[2] or "latest"
    return f"{image.name}_{version}" if tag else image.name  # no image has a _ in its name


def write_bill(built: Built, engine: Engine, *, folder: Path = FOLDER) -> None:
    """Write the packages of the locks, and Debian's as the image itself says; and beside them the image's id.

    Nothing is written where that id stands there already.
    """
    image, place = built.image, bill(built.image, built.tag, folder=folder)
    told = folder / f"{_stem(image, built.tag)}.id"
    if place.exists() and told.exists() and told.read_text(encoding="utf-8").strip() == built.id:
        return
    debian = inside(built, engine, "cat", "/var/lib/dpkg/status")
    version = inside(built, engine, "python3", "-c", "import platform; print(platform.python_version())").strip()
    locks = [(ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8") for lock in image.locks]
    check = not built.tag  # whoever deploys does not wait for what `make images` has checked of the same kind
    place.write_bytes(sbom.bill_of_materials(locks, python=version, debian=debian, check=check))
    told.write_text(f"{built.id}\n", encoding="utf-8")


def make(
    names: Sequence[str] = (),
    *,
    fresh: bool = False,
    platform: str = "",
    tag: str = "",
    tool: Engine | None = None,
    folder: Path = FOLDER,
) -> list[Built]:
    """Build these images, or all, in one process at a time, each with its bill in the folder, and say so; see `build`.

    Raises CannotBuild. One with a `tag` of its own is built to be pushed. `tool` is by default what `engine` finds.
    """
    wanted = [image for image in images() if not names or image.name in names]
    with _alone(folder):
        by = tool or engine()
        began = time.monotonic()
        base = base_image(by, fresh=fresh, pushed=bool(tag))
        print(f"{by}, on {base} ({time.monotonic() - began:.0f} s)", flush=True)

        def one(image: Image) -> Built:
            built = build(image, by, base, fresh=fresh, platform=platform, tag=tag)
            write_bill(built, by, folder=folder)
            print(f"{image.name}: {built.size / 1e6:.0f} MB, {built.seconds:.0f} s, {built.id}", flush=True)
            return built

        # The bot's images share few steps. The pipelines' begin with steps of one of them, which the cache then has.
        bots = [image for image in wanted if image.dockerfile == "Dockerfile"]
        with ThreadPoolExecutor(max(1, len(bots))) as side_by_side:
            done = list(side_by_side.map(one, bots))
        done += [one(image) for image in wanted if image not in bots]
        bills = bill(wanted[0], tag, folder=folder) if tag else folder / "*.cdx.json"
        print(f"Bills of materials: {os.path.relpath(bills, ROOT)}, with the image's id beside each", flush=True)
    return done


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two builds at once would do every step twice."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _succeeds(*command: str, seconds: float = 60) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _run(command: Sequence[str], **environment: str) -> str:
    """What the command prints. Raises CannotBuild with its last lines where it fails."""
    whole: Mapping[str, str] = os.environ | environment
    if command[0] == "buildah":  # whose layers are too large for a folder in memory
        whole = {**whole, "TMPDIR": "/var/tmp"}  # noqa: S108
    done = subprocess.run(command, cwd=ROOT, env=whole, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise CannotBuild(f"{' '.join(command[:2])} failed:\n{last}")
    return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 where an image could not be built."""
    known = [image.name for image in images()]
    parser = argparse.ArgumentParser(prog="python -m deploy.images", description="Build the images.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all where none is named")
    parser.add_argument("--fresh", action="store_true", help="every step anew, the base of Debian's packages too")
    parser.add_argument("--platform", default="", help="such as linux/arm64; by default this machine's")
    parser.add_argument("--tag", default="", help="of the one image that is named; by default its name")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the bills of materials; by default var/images")
    parser.add_argument("--engine", action="store_true", help="print what would build, and end")
    arguments = parser.parse_args(argv)
    if arguments.tag and len(arguments.names) != 1:
        parser.error("--tag is for one image: name it")
    if unknown := set(arguments.names) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(known)}")
    try:
        if arguments.engine:
            print(engine())
            return 0
        make(
            arguments.names,
            fresh=arguments.fresh,
            platform=arguments.platform,
            tag=arguments.tag,
            folder=arguments.folder,
        )
    except (CannotBuild, bases.NotPinned) as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
