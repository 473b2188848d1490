"""The composition root: what is made of which settings. Nothing happens on import, and little in `build`."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.application.output import Output
from bot.application.ports import Chat, Compute, Mailer, Results, Secrets
from bot.application.service import Confirm, JobService
from bot.application.worker import Worker
from bot.domain.catalog import Catalog
from bot.domain.checks import Prices
from bot.domain.errors import NomadsError, Unavailable
from bot.settings import ROOT, Settings
from bot.storage.store import JobStore, connect

if TYPE_CHECKING:
    from slack_bolt import App
    from starlette.applications import Starlette

    from bot.boss.volumes import BossVolumes
    from bot.slack.client import PooledWebClient
    from handlers.logs import Logs

log = logging.getLogger(__name__)

TRIGGER = 2.5
"""Seconds for the call that opens a view: a trigger id lives three."""
BACKLOG = 2048
"""Connections that may wait to be taken; uvicorn's own number."""
LATER = 16
"""Forms and windows that are brought up to date at once, after they were answered."""
QUICK = 0.8
"""Seconds for a question to Slack whose answer is merely convenient."""
PATIENT = 10.0
"""Seconds for a call that nobody waits for."""


@dataclass(frozen=True, kw_only=True)
class Core:
    """The application without a front end."""

    settings: Settings
    store: JobStore
    catalog: Catalog
    compute: Compute
    results: Results
    volumes: BossVolumes
    output: Output
    service: JobService
    worker: Worker

    def close(self) -> None:
        """Let go of every connection, to the database and to BOSS."""
        self.volumes.close()
        self.store.close()


@dataclass(frozen=True, kw_only=True)
class Nomads:
    """The application with Slack in front."""

    core: Core
    app: App
    web: Starlette
    socket_mode: bool
    clients: Sequence[PooledWebClient]
    later: ThreadPoolExecutor
    logs: Logs

    def close(self) -> None:
        """Let go of every connection: to BOSS first, so that nobody waits for it, to the database and to Slack."""
        self.core.volumes.close()
        self.logs.close()
        self.later.shutdown(cancel_futures=True)
        self.core.close()
        for client in self.clients:
            client.close()


def build_core(settings: Settings, *, base_url: str = "", chat: Chat | None = None) -> Core:
    """Everything but a front end. `base_url` is where local results are served; empty: nowhere, links are file:// ones.

    Raises NomadsError in words for the admin where the settings do not fit together.
    """
    from bot.boss.volumes import BossVolumes
    from bot.storage.vault import SealedSecrets, load_key

    if settings.database_url and not settings.database_url.startswith("sqlite") and not settings.secret_key:
        raise NomadsError("Set NOMADS_SECRET_KEY: processes that share a database must share the key of its tokens.")
    try:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise NomadsError(f"NOMADS_DATA: {settings.data} cannot be used: {error.strerror}.") from None
    key = load_key(settings.data / "secret.key", settings.secret_key)
    store = JobStore(connect(settings.database_url or f"sqlite:///{settings.data.resolve() / 'nomads.db'}"))
    vault = SealedSecrets(key=_key(key, "tokens"), rows=store)
    catalog = Catalog.read(settings.pipelines, images=settings.images)
    compute, results, secrets = _places(settings, vault=vault, key=key, base_url=base_url)
    volumes = BossVolumes(host=settings.boss_host, hosts=settings.boss_hosts)
    predictions = "" if settings.predictions == "off" else settings.predictions
    service = JobService(
        store=store,
        catalog=catalog,
        compute=compute,
        vault=vault,
        volumes=volumes,
        max_bytes=settings.max_bytes,
        predictions=predictions,
        prices=Prices(settings.price_cpu_hour, settings.price_gb_hour, settings.currency),
        confirm=Confirm(settings.confirm_bytes, settings.confirm_seconds, settings.confirm_cost),
        admins=settings.admins,
    )
    output = Output(compute=compute, results=results, vault=vault, secrets=secrets)
    worker = Worker(
        store=store,
        service=service,
        catalog=catalog,
        compute=compute,
        results=results,
        vault=vault,
        secrets=secrets,
        output=output,
        mailer=_mailer(settings),
        chat=chat,
        boss_host=settings.boss_host,
        predictions=predictions,
        viewer=settings.viewer,
        mail_domain=settings.mail_from.rpartition("@")[2].rstrip(">") or "localhost",
        watch_interval=settings.watch_interval or (0.5 if settings.compute == "local" else 10),
        lost_after=timedelta(seconds=settings.lost_after),
        explain_after=timedelta(seconds=settings.explain_after),
        admins=settings.admins,
        lease=timedelta(seconds=settings.lease_seconds),
        edit_every=timedelta(seconds=settings.edit_interval),
    )
    return Core(
        settings=settings,
        store=store,
        catalog=catalog,
        compute=compute,
        results=results,
        volumes=volumes,
        output=output,
        service=service,
        worker=worker,
    )


def _key(key: bytes, purpose: str) -> bytes:
    """A key of its own for each purpose."""
    return hmac.new(key, purpose.encode(), hashlib.sha256).digest()


def _places(settings: Settings, *, vault: Secrets, key: bytes, base_url: str) -> tuple[Compute, Results, Secrets]:
    if settings.compute == "aws":
        from bot.aws.batch import BatchCompute
        from bot.aws.clients import Clients
        from bot.aws.s3 import S3Results
        from bot.aws.secrets import AwsSecrets

        if missing := settings.aws.missing_to_run():
            raise NomadsError(f"NOMADS_COMPUTE=aws also needs {', '.join(missing)}; see docs/aws.md.")
        clients = Clients(settings.aws)
        return (
            BatchCompute(config=settings.aws, clients=clients),
            S3Results(config=settings.aws, clients=clients),
            AwsSecrets(config=settings.aws, clients=clients, key=_key(key, "fingerprints")),
        )
    from bot.local.compute import LocalCompute
    from bot.local.results import LocalResults

    data = settings.data.resolve()
    compute = LocalCompute(folder=data / "runs", secrets=vault, root=ROOT, slots=settings.local_slots)
    results = LocalResults(folder=data / "results", base_url=base_url, key=_key(key, "results"))
    return compute, results, vault


def _mailer(settings: Settings) -> Mailer:
    from bot.mail.smtp import NoMailer, SmtpMailer, mime, parse_mail_url

    server = parse_mail_url(settings.mail)
    if server.kind == "off":
        return NoMailer()
    if server.kind == "ses":
        from bot.aws.ses import SesMailer

        return SesMailer(config=settings.aws, mime=lambda mail: mime(mail, sender=settings.mail_from))
    return SmtpMailer(server=server, sender=settings.mail_from)


def build(settings: Settings, *, base_url: str = "") -> Nomads:
    """The application with Slack in front: Socket Mode where there is an app token, else HTTP."""
    from slack_bolt import App, BoltContext

    from bot.local.results import LocalResults
    from bot.slack.chat import SlackChat
    from bot.slack.workspace import Workspace
    from bot.web.site import web
    from handlers import register

    if settings.slack_bot_token is None:
        raise NomadsError("Set SLACK_BOT_TOKEN (OAuth & Permissions in your Slack app's settings).")
    socket_mode = settings.slack_app_token is not None
    if not socket_mode and settings.slack_signing_secret is None:
        raise NomadsError("Set SLACK_APP_TOKEN for Socket Mode, or SLACK_SIGNING_SECRET for HTTP.")
    client, quick, patient = (_client(settings, timeout=seconds) for seconds in (TRIGGER, QUICK, PATIENT))
    chat = SlackChat(client=patient)
    core = build_core(settings, base_url=base_url, chat=chat)
    secret = settings.slack_signing_secret
    app = App(
        client=client,
        request_verification_enabled=False,  # bot.web does that, on the bytes themselves, before Bolt reads them
        process_before_response=True,  # the answer follows the work at once instead of being polled for
        token_verification_enabled=False,  # no call to Slack before the first request
    )

    @app.middleware
    def share_client(context: BoltContext, next: Callable[[], None]) -> None:
        context["client"] = client  # Bolt makes one for each request, whose connections end with it
        next()

    def show_home(person: str) -> None:
        """Until it shows what is: something may change while it is on its way, and be shown before it."""
        shown = None
        for _ in range(3):
            if (home := core.service.home(person)) == shown:
                return
            chat.show_home(person, home)
            shown = home

    later = ThreadPoolExecutor(LATER, thread_name_prefix="later")
    logs = register(
        app,
        service=core.service,
        catalog=core.catalog,
        volumes=core.volumes,
        output=core.output,
        workspace=Workspace(client=quick),
        later=later,
        show_home=show_home,
    )

    def ready() -> str:
        try:
            core.store.open_effects()
        except Unavailable as error:
            return str(error)
        return ""

    results = core.results if isinstance(core.results, LocalResults) else None
    return Nomads(
        core=core,
        app=app,
        web=web(app=None if socket_mode else app, results=results, ready=ready, signing_secret=secret),
        socket_mode=socket_mode,
        clients=(client, quick, patient),
        later=later,
        logs=logs,
    )


def _client(settings: Settings, *, timeout: float) -> PooledWebClient:
    from bot.slack.client import PooledWebClient

    if settings.slack_bot_token is None:
        raise NomadsError("Set SLACK_BOT_TOKEN.")
    return PooledWebClient(
        token=settings.slack_bot_token.get_secret_value(),
        base_url=settings.slack_api_url.rstrip("/") + "/",
        timeout=timeout,
    )


@contextlib.contextmanager
def working(core: Core) -> Iterator[None]:
    """The worker runs as long as the block does; what is under way at its end is finished."""
    core.store.migrate()
    worker = threading.Thread(target=core.worker.run, name="worker")
    worker.start()
    try:
        yield
    finally:
        core.worker.stop()
        worker.join()
        core.close()


@contextlib.contextmanager
def running(nomads: Nomads) -> Iterator[None]:
    """The worker, and in Socket Mode the connection, run as long as the block does."""
    with contextlib.closing(nomads), working(nomads.core):
        nomads.core.volumes.prepare()  # or the first form would wait for it
        if not nomads.socket_mode:
            yield
            return
        from slack_bolt.adapter.socket_mode import SocketModeHandler
        from slack_sdk.errors import SlackApiError

        token = nomads.core.settings.slack_app_token
        connection = SocketModeHandler(nomads.app, token.get_secret_value() if token else None)
        try:
            try:
                connection.connect()  # type: ignore[no-untyped-call]
            except SlackApiError as error:
                raise NomadsError(f"Slack did not take SLACK_APP_TOKEN ({error.response.get('error')}).") from None
            except OSError as error:
                raise Unavailable(f"Slack cannot be reached ({type(error).__name__}).") from None
            yield
        finally:
            connection.close()  # type: ignore[no-untyped-call]


def run(settings: Settings) -> None:
    """Serve until a signal ends it."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named, or asyncio leaves TCP_NODELAY off and each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        raise NomadsError(f"Port {settings.port} on {settings.host} cannot be used: {error.strerror}.") from None
    with contextlib.closing(listener):
        _serve(settings, listener)


def _serve(settings: Settings, listener: socket.socket) -> None:
    import uvicorn

    port = listener.getsockname()[1]
    url = _public_url(settings, port=port)
    nomads = build(settings, base_url=url)
    announce(nomads.core)
    server = uvicorn.Server(uvicorn.Config(nomads.web, log_config=None, access_log=False))

    def end(*_: object) -> None:
        server.should_exit = True

    # While it serves, uvicorn heeds signals itself; afterwards it raises them again, which must not cut the rest short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with running(nomads):
        listener.listen(BACKLOG)  # from now on nobody is turned away, though it takes uvicorn a moment more
        log.info(
            "NOMADS is ready at %s, Slack over %s.",
            _address(settings.host, port),
            "Socket Mode" if nomads.socket_mode else "HTTP",
        )
        server.run(sockets=[listener])


def _public_url(settings: Settings, *, port: int | None) -> str:
    """Where people reach local results. Raises NomadsError where that cannot be known: links would lead nowhere."""
    anywhere = settings.host in ("0.0.0.0", "::", "")  # noqa: S104  the question is whether it is that
    if settings.public_url or settings.compute != "local":
        return settings.public_url.rstrip("/")
    if port is None or anywhere:
        raise NomadsError("Set NOMADS_PUBLIC_URL: the links to results must say where this machine is reached.")
    return _address(settings.host, port)


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def work(settings: Settings) -> None:
    """Carry out effects and watch jobs, beside other processes that serve Slack, until a signal ends it.

    Raises NomadsError with local compute and no public URL: another process serves the results.
    """
    nomads = build(settings, base_url=_public_url(settings, port=None))
    announce(nomads.core)
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with working(nomads.core):
        over.wait()


def provision(settings: Settings) -> None:
    """Create in AWS what is missing. Raises Refused with every setting that is not there."""
    from bot.aws.provision import provision as make

    make(settings.aws, Catalog.read(settings.pipelines, images=settings.images), say=print)


def doctor(settings: Settings, *, say: Callable[[str], None]) -> bool:
    """Try each part once, without starting anything, and say what is wrong; True where nothing is."""
    from bot.mail.smtp import SmtpMailer

    core = build_core(settings)
    core.store.migrate()
    checks: dict[str, Callable[[], object]] = {
        "database": core.store.open_effects,
        "compute": lambda: core.compute.find("nomads-doctor"),
        "results": lambda: core.results.list("nomads/doctor"),
        "pipelines": lambda: _runnable(core),
    }
    checks["slack"] = lambda: _greet(settings)
    if isinstance(mailer := _mailer(settings), SmtpMailer):
        checks["mail"] = mailer.check
    sound = True
    for name, check in checks.items():
        try:
            check()
            say(f"{name}: ok")
        except NomadsError as error:
            sound = False
            say(f"{name}: {error}")
    core.close()
    return sound


def _runnable(core: Core) -> None:
    problems = {p.name: core.compute.refuses(image=p.image, command=p.command) for p in core.catalog}
    if all(problems.values()):
        raise NomadsError(" ".join(problems.values()) or "There is no pipeline.")


def _greet(settings: Settings) -> None:
    from slack_sdk.errors import SlackApiError, SlackClientError

    asked = "SLACK_BOT_TOKEN"
    try:
        with contextlib.closing(_client(settings, timeout=PATIENT)) as client:
            client.auth_test()
            if settings.slack_app_token:
                asked = "SLACK_APP_TOKEN"
                client.apps_connections_open(app_token=settings.slack_app_token.get_secret_value())
            elif not settings.slack_signing_secret:
                raise NomadsError("Set SLACK_APP_TOKEN for Socket Mode, or SLACK_SIGNING_SECRET for HTTP.")
    except SlackApiError as error:
        raise NomadsError(f"Slack did not take {asked} ({error.response.get('error')}).") from None
    except (SlackClientError, OSError) as error:
        raise NomadsError(f"Slack cannot be reached ({type(error).__name__}).") from None


def announce(core: Core) -> None:
    """Say loudly what runs on this machine alone."""
    if core.settings.compute == "local":
        log.warning("%s", getattr(core.compute, "announcement", "Programs run on this machine."))
