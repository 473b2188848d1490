"""The composition root: what is made of which settings. Nothing happens on import, and little in `build`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bot.application.links import Links
from bot.application.places import Places
from bot.application.ports import Chat, Mailer, NoWorkspace, Workspace
from bot.backends import load
from bot.core import Core, Outside, assemble
from bot.domain import named
from bot.domain.catalog import Catalog
from bot.domain.errors import NomadsError
from bot.settings import Settings, read
from bot.storage.engine import Database, connect
from bot.storage.keys import derived, load_key
from bot.storage.vault import Vault
from volumes.roots import Roots

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from bot.slack.client import PooledWebClient
    from bot.slack.requests import Requests
    from handlers.logs import Logs

TRIGGER = 2.5
"""Seconds for the call that opens a view: a trigger id is valid for three."""
LATER = 16
"""Forms and windows that are updated at once, after their requests were answered."""
QUICK = 0.8
"""Seconds for a question to Slack whose answer is merely convenient."""
PATIENT = 10.0
"""Seconds for a call that nobody waits for."""


@dataclass(frozen=True, kw_only=True)
class Nomads:
    """The application with Slack in front."""

    core: Core
    slack: Requests
    web: Starlette
    socket_mode: bool
    clients: Sequence[PooledWebClient]
    later: ThreadPoolExecutor
    logs: Logs

    def close(self) -> None:
        """Close every connection: to BOSS first, so that no thread waits for it, to the database and to Slack."""
        self.core.volumes.close()
        self.logs.close()
        self.later.shutdown(cancel_futures=True)
        self.core.close()
        for client in self.clients:
            client.close()


def build_core(
    settings: Settings, *, base_url: str = "", chat: Chat | None = None, workspace: Workspace | None = None
) -> Core:
    """Everything but a front end. `base_url` is where people reach the bot's web; empty: links lead to the stores.

    Without `chat`, jobs that belong to a channel are left to processes that have it. Raises NomadsError in words for
    the admin where the settings do not fit together.
    """
    from bot.boss.volumes import BossVolumes
    from bot.volumes.addressed import AddressedVolumes

    key, database = _storage(settings)
    vault = Vault(key=derived(key, "tokens"), database=database)
    roots = Roots.read(settings.volume_roots)
    outside = Outside(
        database=database,
        vault=vault,
        catalog=Catalog.read(settings.pipelines, images=settings.images),
        backend=load(settings.compute).backend(settings, tokens=vault, key_for=partial(derived, key)),
        volumes=AddressedVolumes(boss=BossVolumes(host=settings.boss_host, hosts=settings.boss_hosts), roots=roots),
        places=Places(named=named.read(settings.volumes) if settings.volumes else (), boss_host=settings.boss_host),
        links=Links(base_url=base_url, key=derived(key, "links"), days=settings.link_days),
        mailer=mailer(settings),
        chat=chat,
        workspace=workspace or NoWorkspace(),
        roots=str(roots),
    )
    return assemble(settings, outside)


def _storage(settings: Settings) -> tuple[bytes, Database]:
    """The key that seals tokens, and the database. Raises NomadsError in words for the admin."""
    url = settings.database_url.get_secret_value()
    if url and not url.startswith("sqlite") and not settings.secret_key:
        raise NomadsError("Set NOMADS_SECRET_KEY: processes that share a database must share the key of its tokens.")
    try:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise NomadsError(f"NOMADS_DATA: {settings.data} cannot be used: {error.strerror}.") from None
    engine = connect(url or f"sqlite:///{settings.data.resolve() / 'nomads.db'}")  # before a key is made beside it
    return load_key(settings.data / "secret.key", settings.secret_key), Database(engine)


def mailer(settings: Settings) -> Mailer:
    """The mailer that NOMADS_MAIL names. Raises NomadsError where the settings of AWS that it needs are wrong."""
    from bot.mail.smtp import NoMailer, SmtpMailer, mime

    server = settings.mail_server
    if server.kind == "off":
        return NoMailer()
    if server.kind == "ses":
        from bot.aws.config import AwsConfig
        from bot.aws.ses import SesMailer

        return SesMailer(config=read(AwsConfig), mime=lambda mail: mime(mail, sender=settings.mail_from))
    return SmtpMailer(server=server, sender=settings.mail_from)


def build(settings: Settings, *, base_url: str = "") -> Nomads:
    """The application with Slack in front: Socket Mode where there is an app token, else HTTP. Raises NomadsError."""
    from slack_bolt import App

    from bot.slack.chat import SlackChat
    from bot.slack.connection import SharedClient
    from bot.slack.requests import Requests
    from bot.slack.workspace import SlackWorkspace
    from bot.web.site import web
    from handlers import register

    if settings.slack_bot_token is None:
        raise NomadsError("Set SLACK_BOT_TOKEN (OAuth & Permissions in your Slack app's settings).")
    socket_mode = settings.slack_app_token is not None
    if not socket_mode and settings.slack_signing_secret is None:
        raise NomadsError("Set SLACK_APP_TOKEN for Socket Mode, or SLACK_SIGNING_SECRET for HTTP.")
    client, quick, patient = (slack_client(settings, timeout=seconds) for seconds in (TRIGGER, QUICK, PATIENT))
    chat = SlackChat(client=patient)
    core = build_core(settings, base_url=base_url, chat=chat, workspace=SlackWorkspace(client=quick))
    app = App(
        client=client,
        request_verification_enabled=False,  # bot.web does that, on the bytes themselves, before Bolt reads them
        process_before_response=True,  # the answer follows the work at once instead of being polled for
        token_verification_enabled=False,  # no call to Slack before the first request
        ignoring_self_events_enabled=False,  # of events, the app hears of its opened home tab alone
        attaching_function_token_enabled=False,  # the app has no functions of workflows
        raise_error_for_unhandled_request=True,  # handlers.errors answers: Bolt would log lines of code to write
    )
    app.middleware(SharedClient(client))
    later = ThreadPoolExecutor(LATER, thread_name_prefix="later")
    logs = register(
        app,
        submission=core.submission,
        steering=core.steering,
        queries=core.queries,
        people=core.people,
        browsing=core.browsing,
        output=core.output,
        catalog=core.catalog,
        workspace=core.workspace,
        first_choice=core.reviewer.first_choice,
        show_home=chat.show_home,
        later=later,
    )

    secret, requests = settings.slack_signing_secret, Requests(app)
    return Nomads(
        core=core,
        slack=requests,
        web=web(
            slack=None if socket_mode else requests,
            shared=core.visits,
            health=core.readiness.now,
            signing_secret=secret,
        ),
        socket_mode=socket_mode,
        clients=(client, quick, patient),
        later=later,
        logs=logs,
    )


def slack_client(settings: Settings, *, timeout: float) -> PooledWebClient:
    """A client of Slack's Web API. Raises NomadsError where there is no token."""
    from bot.slack.client import PooledWebClient

    if settings.slack_bot_token is None:
        raise NomadsError("Set SLACK_BOT_TOKEN.")
    return PooledWebClient(
        token=settings.slack_bot_token.get_secret_value(),
        base_url=settings.slack_api_url.rstrip("/") + "/",
        timeout=timeout,
    )
