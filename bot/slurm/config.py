"""The settings of the Slurm module, each named in the environment as NOMADS_SLURM_ and its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bot.settings import Json

Word = Annotated[
    str,
    Field(pattern=r"^$|^[A-Za-z0-9][A-Za-z0-9_.,@-]{0,127}$", description="a name that the cluster knows"),
]
OWN = frozenset(
    (
        *("--export", "--export-file", "--get-user-env", "--output", "--error", "--input", "--open-mode", "--chdir"),
        *("--array", "--job-name", "--parsable", "--test-only", "--wait", "--wrap", "--requeue", "--no-requeue"),
        *("--nodes", "--ntasks", "--cpus-per-task", "--mem", "--mem-per-cpu", "--time", "--partition", "--account"),
    )
)
"""Arguments of sbatch that NOMADS gives itself, by what a program needs or by a setting of its own."""


class SlurmConfig(BaseSettings):
    """Names and places on the cluster; sbatch, squeue, scancel and scontrol are found in PATH."""

    model_config = SettingsConfigDict(
        env_prefix="NOMADS_SLURM_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        enable_decoding=False,
    )

    folder: Annotated[
        Path,
        Field(description="the absolute path of a folder that the nodes have at the same path, such as /lab/nomads"),
    ]
    """Where runs and results lie: here and on every node at the same path."""
    partition: Word = ""
    """Empty: the cluster's default."""
    account: Word = ""
    """Empty: the user's default."""
    arguments: Annotated[
        tuple[str, ...],
        Json,
        Field(description='a list in JSON of further arguments of sbatch, such as ["--qos=long", "--constraint=avx2"]'),
    ] = ()
    python: Annotated[str, Field(pattern=r"^$|^/[ -~]*$", description="the absolute path of a Python")] = ""
    """The Python that programs run on, without an image; empty: the bot's own."""
    image: Annotated[
        str,
        Field(
            pattern=r"^$|^(/|docker://|oras://|library://)[!-~]+$",
            description="the absolute path of an image of Apptainer, such as /lab/nomads.sif, or an address it pulls",
        ),
    ] = ""
    """Empty: programs run without a container."""
    apptainer: Annotated[str, Field(pattern=r"^/?[!-~]+$", description="a command or its path")] = "apptainer"
    """The command that runs the image, on the nodes."""
    max_array: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """The largest array: the cluster's MaxArraySize at most, which is 1001 unless the cluster says otherwise."""
    patience: Annotated[float, Field(gt=0, le=600)] = 20
    """Seconds that a command of Slurm's has to answer."""

    @field_validator("folder")
    @classmethod
    def _absolute(cls, folder: Path) -> Path:
        if not folder.is_absolute() or not str(folder).isprintable():
            raise ValueError("this has to be an absolute path, since the nodes have to find the same folder")
        return folder

    @field_validator("arguments")
    @classmethod
    def _allowed(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        for argument in arguments:
            name = argument.partition("=")[0]
            if not (name.startswith("--") and len(name) > 2 and argument.isprintable()):
                raise ValueError("each argument is one text that begins with two dashes, such as --qos=long")
            if name in OWN:
                raise ValueError(f"NOMADS says {name} itself; leave it out")
        return arguments
