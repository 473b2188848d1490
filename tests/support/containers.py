"""The images as `make images` builds them, run by podman as any engine runs them, but on the host's network."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

COMMANDS = ("buildah", "mmdebstrap", "podman", "runc")


def is_there() -> bool:
    """Whether this machine can build images and run them."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    return os.geteuid() == 0 and all(shutil.which(command, path=path) for command in COMMANDS)


def podman_run(
    image: str,
    *command: str,
    environment: Mapping[str, str] | None = None,
    mounts: Sequence[Path] = (),
    options: Sequence[str] = (),
) -> list[str]:
    """The command of a container: its root read-only, no rights but those in the options, mounts at the same paths."""
    limits = ("nofile=4096:4096", "nproc=4096:4096")  # podman's own are above what a container of the CI's may set
    made = [
        "podman",
        "--runtime=runc",
        "run",
        "--rm",
        "--network=host",
        "--read-only",
        "--tmpfs=/tmp",
        "--cap-drop=all",
    ]
    made += ["--security-opt=no-new-privileges", *(f"--ulimit={limit}" for limit in limits), *options]
    made += [f"--env={name}={value}" for name, value in (environment or {}).items()]
    made += [f"--volume={mount}:{mount}" for mount in mounts]
    return [*made, f"localhost/{image}", *command]


def run(
    image: str,
    *command: str,
    environment: Mapping[str, str] | None = None,
    mounts: Sequence[Path] = (),
    options: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """The command in a container, to its end."""
    made = podman_run(image, *command, environment=environment, mounts=mounts, options=options)
    return subprocess.run(made, capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def running(
    image: str,
    name: str,
    *,
    log: Path,
    environment: Mapping[str, str],
    mounts: Sequence[Path],
    options: Sequence[str],
) -> Iterator[None]:
    """A container of that name for as long as the block lasts; its output goes to `log`."""
    made = podman_run(image, environment=environment, mounts=mounts, options=[*options, f"--name={name}"])
    with log.open("ab") as output:
        process = subprocess.Popen(made, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        subprocess.run(
            ["podman", "--runtime=runc", "rm", "--force", "--time=10", name], capture_output=True, check=False
        )
        process.wait(timeout=30)
