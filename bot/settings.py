"""The settings, from the environment or a `.env` file. Reading them touches nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bot.backends import BACKENDS, load
from bot.domain import urls
from bot.domain.errors import NomadsError
from bot.domain.mistakes import mistakes
from contract.names import PATTERN, short
from contract.program import BLOCK_VOXELS, IMAGE_BYTES
from volumes.errors import WrongVolume
from volumes.roots import BOSSDB, Roots

ROOT = Path(__file__).resolve().parent.parent
ENV_FILE = ".env"
"""The file that settings are read from, in the folder in which the bot is started."""
GB = 10**9
PB = 10**15
HOUR = 3600
DAY = 24 * HOUR


def _from_json(value: Any) -> Any:
    """What a text says in JSON; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError('this cannot be read; it has to be JSON, such as ["a", "b"]') from None


def _is(check: Callable[[str], object]) -> AfterValidator:
    """A text that is empty, or for which `check` raises no ValueError; the description says what it has to be."""

    def checked(text: str) -> str:
        try:
            if text:
                check(text)
        except (ValueError, WrongVolume):
            raise PydanticCustomError("address", "wrong") from None
        return text

    return AfterValidator(checked)


def _printable(text: str) -> None:
    """Raises ValueError where the text has a line end or another character that cannot be printed."""
    if not text.isprintable():
        raise ValueError


def _secret(pattern: str) -> AfterValidator:
    """A secret in which the pattern is found; the description says what it has to be."""

    def checked(secret: SecretStr | None) -> SecretStr | None:
        if secret and not re.search(pattern, secret.get_secret_value()):
            raise PydanticCustomError("secret", "wrong")
        return secret

    return AfterValidator(checked)


Json = BeforeValidator(_from_json)
"""A setting that is written as JSON. pydantic-settings would read it too, but stop at the first that is wrong."""
WebAddress = Annotated[str, _is(urls.web), Field(description=urls.WEB)]
OfSlack = Annotated[
    SecretStr | None, _secret(r"\A[!-~]+\Z"), Field(description="what Slack's page shows, without blanks and line ends")
]
BaseAddress = Annotated[str, _is(urls.base), Field(description=urls.BASE)]


class Settings(BaseSettings):
    """The settings, each named in the environment as NOMADS_ and its name unless an alias says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix="NOMADS_",
        env_file=ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        enable_decoding=False,
    )

    slack_bot_token: Annotated[OfSlack, Field(validation_alias=AliasChoices("SLACK_BOT_TOKEN"))] = None
    slack_signing_secret: Annotated[OfSlack, Field(validation_alias=AliasChoices("SLACK_SIGNING_SECRET"))] = None
    slack_app_token: Annotated[OfSlack, Field(validation_alias=AliasChoices("SLACK_APP_TOKEN"))] = None
    """Set: Socket Mode. Unset: HTTP."""
    slack_api_url: Annotated[BaseAddress, Field(validation_alias=AliasChoices("SLACK_API_URL"))] = (
        "https://slack.com/api/"
    )

    host: Annotated[str, _is(urls.bound), Field(description=urls.BOUND)] = "127.0.0.1"
    """The address that the server binds."""
    port: Annotated[int, Field(ge=0, le=65535)] = 3000
    public_url: BaseAddress = ""
    """Where people reach the server, for links to results; empty: locally the address that it binds, on AWS nowhere."""
    link_days: Annotated[float, Field(gt=0, le=366)] = 7
    """Days that a link to results works; after that, the Results button gives a new one."""

    compute: str = "local"
    """Where programs run, by the names in `bot.backends`."""
    data: Path = Path("var")
    """Where this machine stores its data: database, key, runs, results."""
    database_url: SecretStr = SecretStr("")
    """SQLAlchemy's URL, which may hold a password; empty: SQLite in the data folder."""
    secret_key: Annotated[
        SecretStr | None, _secret(r"\S.{14,}\S"), Field(description="16 random characters or more")
    ] = None
    """Encrypts tokens in the database; unset: a key file in the data folder, made at the first start."""
    pipelines: Path = ROOT / "pipelines"
    images: Annotated[
        dict[str, str], Json, Field(description='an object in JSON, such as {"pipeline": "registry/image:1"}')
    ] = {}
    """JSON: pipeline name to container image, over what pipeline.toml says."""

    boss_host: Annotated[str, _is(urls.origin), Field(min_length=1, description=urls.HOST)] = "api.bossdb.io"
    """The BOSS that programs read: a host name, or a URL where it is not https."""
    boss_hosts: Annotated[
        list[Annotated[str, _is(urls.origin)]], Json, Field(description=f"a list, each {urls.HOST}")
    ] = []
    """JSON: the hosts to which NOMADS itself may send a person's token; empty: NOMADS_BOSS_HOST only."""
    predictions: Annotated[
        str, Field(pattern=rf"^(off|{PATTERN}/{PATTERN})$", description="off, or collection/experiment in BOSS")
    ] = "collman_nomads/nomads_predictions"
    """`collection/experiment` in BOSS that programs write their detections back to, or `off`."""
    volume_roots: Annotated[
        str, _is(Roots.read), Field(description="hosts, buckets and folders, such as s3://bucket,https://host")
    ] = BOSSDB
    """Where volumes by address, and BOSS's bulk data, may lie; programs and the bot ask nothing else."""
    volumes: Path | None = None
    """A TOML file of volumes that are offered by a name; unset: none are."""
    viewer: WebAddress = ""
    """A Neuroglancer that results link to; empty: the public one, for volumes that the internet can reach."""
    image_bytes: Annotated[int, Field(ge=0, le=PB)] = IMAGE_BYTES
    """Programs write the channels beside their results, for viewers, where these have no more bytes; 0: never."""
    max_bytes: Annotated[int, Field(gt=0, le=PB)] = 2 * GB
    """The most data one job may read, in bytes."""
    block_voxels: Annotated[int, Field(ge=10**4, le=10**12)] = BLOCK_VOXELS
    """Voxels of a block: a larger box is cut, where the program knows how, and worked on by many programs."""
    max_voxels: Annotated[int, Field(gt=0, le=10**15)] = 10**12
    """The most voxels of a job in blocks."""
    reads: Annotated[int, Field(ge=1, le=10_000)] = 256
    """How many programs of jobs in blocks may read from BOSS at once, each with one request: all jobs together."""
    confirm_bytes: Annotated[int, Field(ge=0, le=PB)] = 0
    """A run that reads more bytes than this is confirmed first; 0: no limit."""
    confirm_seconds: Annotated[float, Field(ge=0, le=366 * DAY)] = 0
    """A run that is expected to take more seconds than this is confirmed first; 0: no limit."""
    confirm_cost: Annotated[float, Field(ge=0, le=GB)] = 0
    """A run that is expected to cost more than this, in `currency`, is confirmed first; 0: no limit."""
    price_cpu_hour: Annotated[float, Field(ge=0, le=1_000_000)] = 0
    """Price of an hour of one virtual processor; where both prices are 0, costs are not told."""
    price_gb_hour: Annotated[float, Field(ge=0, le=1_000_000)] = 0
    """Price of an hour of 10^9 bytes of memory."""
    currency: Annotated[
        str, Field(max_length=8, description="printable text of 8 characters at most"), _is(_printable)
    ] = "$"

    mail: SecretStr = SecretStr("off")
    """`smtp://user:password@host:587?tls=starttls`, `smtps://…`, `ses://` or `off`."""
    mail_from: Annotated[str, _is(urls.mailbox), Field(min_length=1, description=urls.SENDER)] = "nomads@localhost"
    mail_domains: Annotated[list[str], Json] = []
    """JSON: the only domains that mail goes to, with those below them; empty: every one."""

    admins: Annotated[list[str], Json] = []
    """JSON: Slack user ids of people who may see, cancel and retry every job; mentioned where one waits long."""
    edit_interval: Annotated[float, Field(ge=0, le=HOUR)] = 3
    """Least seconds between two edits of a card, and between two updates of a home tab."""
    explain_after: Annotated[float, Field(gt=0, le=30 * DAY)] = 600
    """Seconds that a job waits to run before its thread says why."""
    watch_interval: Annotated[float, Field(ge=0, le=HOUR)] = 0
    """Seconds between two looks at the running jobs; 0: half a second locally, 10 on AWS."""
    lost_after: Annotated[float, Field(ge=0, le=30 * DAY)] = 300
    """Seconds after its submission from which a job that compute does not know is LOST."""
    lease_seconds: Annotated[float, Field(ge=1, le=HOUR)] = 15
    """Seconds for which a dead process's effects stay leased; then another process performs them."""
    local_slots: Annotated[int, Field(ge=1, le=1000)] = 2
    """How many programs run at once on this machine; the others wait."""
    local_user: str = ""
    """Name or id of the user of the first program at once; empty: an unused one where root starts the bot; or `off`."""
    local_memory: Annotated[int, Field(ge=0, le=PB)] = 0
    """Bytes of memory of each process of a program; 0: nine tenths of the machine's."""
    local_processes: Annotated[int, Field(ge=0, le=4_194_304)] = 1024
    """Processes and threads of a program that has a user of its own; 0: no limit."""
    local_files: Annotated[int, Field(ge=0, le=1_048_576)] = 4096
    """Open files of each process of a program; 0: no limit."""
    local_disk: Annotated[int, Field(ge=0, le=PB)] = 50 * GB
    """Bytes of a program's results and temporary files; 0: no limit."""
    local_log: Annotated[int, Field(ge=0, le=PB)] = GB
    """Bytes that a program may print; 0: no limit."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """What NOMADS itself logs. Of libraries only warnings are logged: their finer logs hold whole requests."""

    @property
    def predictions_place(self) -> str:
        """`collection/experiment` that programs write their detections to; empty: nowhere."""
        return "" if self.predictions == "off" else self.predictions

    @property
    def mail_domain(self) -> str:
        """The domain that mail comes from."""
        return self.mail_from.rpartition("@")[2].rstrip(">") or "localhost"

    @property
    def mail_server(self) -> urls.MailServer:
        """What `mail` names."""
        return urls.mail_server(self.mail)

    @field_validator("mail")
    @classmethod
    def _mail(cls, url: SecretStr) -> SecretStr:
        urls.mail_server(url)
        return url

    @field_validator("database_url")
    @classmethod
    def _database(cls, url: SecretStr) -> SecretStr:
        if url:
            urls.database(url.get_secret_value())
        return url

    @field_validator("mail_domains")
    @classmethod
    def _domains(cls, names: list[str]) -> list[str]:
        for name in names:
            if not re.fullmatch(r"@?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?", name.strip()):
                raise ValueError(f"{name!r} is not a domain such as example.org")
        return names

    @field_validator("compute")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in BACKENDS:
            raise ValueError(f"there is no {short(name)}; there is {', '.join(BACKENDS)}")
        return name


S = TypeVar("S", bound=BaseSettings)


def read(kind: type[S], *beside: type[BaseSettings]) -> S:
    """Read settings from the environment.

    Raises NomadsError, which names each unusable setting of `kind` and of `beside`, with what it may be.
    """
    kinds: list[type[BaseSettings]] = [kind, *beside]
    if wrong := [line for one in kinds for line in _wrong(one)]:
        raise NomadsError("\n".join(["These settings cannot be used:", *dict.fromkeys(wrong)]))
    return kind()


def read_all(*beside: type[BaseSettings]) -> Settings:
    """Read the settings, with those that the chosen backend and mailer need besides. Raises as `read` does."""
    return read(Settings, *_needed(), *beside)


class Choices(BaseSettings):
    """The settings that decide which others are needed, whatever they say."""

    model_config = Settings.model_config

    compute: str = "local"
    mail: SecretStr = SecretStr("off")


def _needed() -> list[type[BaseSettings]]:
    try:
        chosen = Choices()
    except (OSError, UnicodeDecodeError):  # told with the settings
        return []
    needed = [getattr(load(chosen.compute), "SETTINGS", None)] if chosen.compute in BACKENDS else []
    if urls.is_ses(chosen.mail):
        needed.append(load("aws").ACCOUNT)
    return list(filter(None, needed))


def _wrong(kind: type[BaseSettings]) -> list[str]:
    """A line for each setting that cannot be used, which begins with its name in the environment."""
    prefix = str(kind.model_config.get("env_prefix", ""))
    try:
        kind()
    except ValidationError as error:
        fields = [(where.partition(".")[0], said) for where, said in mistakes(error, kind)]  # not the place in a list
        return [f"{name if name.isupper() else prefix + name.upper()}: {said}" for name, said in fields]
    except (OSError, UnicodeDecodeError):
        return [f"The file {kind.model_config.get('env_file')} cannot be read, or is no text in UTF-8."]
    return []
