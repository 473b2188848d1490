"""Mail to an address that is not the submitter's own: who asked for it, and how it ends for good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from bot.application.submission import Form
from bot.domain.errors import InvalidRequest
from bot.domain.job import Job
from bot.domain.states import JobState
from bot.storage.engine import Database, connect
from tests.support.app import Serve
from tests.support.databases import new_sqlite
from tests.support.waiting import until
from tests.support.world import TOKEN, World, a_request

GUEST = "guest@elsewhere.org"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Database]:
    """A database in a file: what is asked here does not depend on its kind."""
    store = Database(connect(new_sqlite(tmp_path / "nomads.db")))
    yield store
    store.close()


@pytest.fixture
def world(store: Database) -> World:
    world = World(store)
    world.workspace.mails["U01DEMO"] = "Demo@Example.org"
    world.workspace.names["U01DEMO"] = "Demo <Person>"
    return world


def ended(world: World, *, email: str) -> Job:
    """A job that ran to its end, with both of its mails."""
    job = world.accept(email=email)
    world.settle()
    world.see(job, JobState.RUNNING, started_at=world.clock.now)
    world.see(job, JobState.SUCCEEDED, stopped_at=world.clock.now)
    world.settle()
    return world.job(job)


def test_mail_to_the_submitter_s_own_address_says_nothing_of_others(world: World) -> None:
    ended(world, email="demo@example.org")

    assert len(world.mailer.sent) == 2
    for mail in world.mailer.sent:
        assert "our NOMADS job" in mail.text or "your job" in mail.text
        assert "no more mail" not in mail.text
        assert mail.unsubscribe == ""


def test_mail_to_another_address_says_who_asked_and_how_to_end_it(world: World) -> None:
    ended(world, email=GUEST)

    assert [mail.to for mail in world.mailer.sent] == [GUEST, GUEST]
    for mail in world.mailer.sent:
        assert "that Demo <Person> asked for" in mail.text
        assert "because Demo <Person> named your address" in mail.text
        assert "Demo &lt;Person&gt;" in mail.html
        assert mail.unsubscribe.startswith("https://nomads.test/mail/")
        assert f"Get no more mail from NOMADS, whoever asks for it: {mail.unsubscribe}" in mail.text
        assert f'href="{mail.unsubscribe}"' in mail.html
        assert GUEST not in mail.unsubscribe


def test_where_slack_does_not_tell_whose_an_address_is_it_counts_as_another_s(world: World) -> None:
    world.workspace.mails.clear()
    world.workspace.names.clear()

    ended(world, email="demo@example.org")

    assert all("somebody in Slack (U01DEMO)" in mail.text for mail in world.mailer.sent)
    assert all(mail.unsubscribe for mail in world.mailer.sent)


def test_an_address_that_asked_for_no_more_mail_gets_none_of_anybody_s_jobs_and_their_threads_say_so(
    world: World,
) -> None:
    running = world.accept(email=GUEST)
    other = world.accept(email=GUEST.upper(), x="0,256", actor="U02OTHER")
    world.addresses.end(world.links.digest(GUEST))

    world.settle()
    for job in (running, other):
        world.see(job, JobState.SUCCEEDED, stopped_at=world.clock.now)
    world.settle()

    assert world.mailer.sent == []
    told = "\n".join(world.thread)
    assert told.count("No mail is sent to its address, which has asked for no more mail.") == 2, "once for each job"


def test_a_request_with_such_an_address_is_told_so_under_the_field_with_all_its_other_mistakes(world: World) -> None:
    world.addresses.end(world.links.digest(GUEST))

    with pytest.raises(InvalidRequest) as alone:
        world.submit(key="view:1", email=GUEST)
    form = Form(values=a_request(email=GUEST).typed | {"z": "9, 1"}, token=SecretStr(TOKEN))
    with pytest.raises(InvalidRequest) as among:
        world.submission.submit(form, actor="U01DEMO", key="view:2", within=0.01)
    with pytest.raises(InvalidRequest) as at_a_terminal:
        world.ask(email=GUEST)
    with pytest.raises(InvalidRequest) as unknown:
        world.ask(email=GUEST, experiment="corteks")

    assert alone.value.errors == {"email": "This address has asked for no more mail; write another one."}
    assert set(among.value.errors) == {"email", "z"}
    assert at_a_terminal.value.errors == alone.value.errors
    assert set(unknown.value.errors) == {"email", "experiment"}


def test_a_retry_asks_for_another_address_in_place_of_such_a_one(world: World) -> None:
    job = world.accept(email=GUEST)
    world.settle()
    world.see(job, JobState.FAILED, stopped_at=world.clock.now)
    world.settle()
    world.addresses.end(world.links.digest(GUEST))

    needed = world.steering.retry(job.id, actor="U01DEMO", token=SecretStr(TOKEN))

    assert getattr(needed, "email", False) is True
    with pytest.raises(InvalidRequest) as wrong:
        world.steering.retry(job.id, actor="U01DEMO", token=SecretStr(TOKEN), email=GUEST)
    assert "no more mail" in wrong.value.errors["email"]


@pytest.mark.parametrize("address", ["a@lab.org", "a@neuro.lab.org", "A@LAB.ORG", "a@other.edu"])
def test_the_lab_s_own_domains_and_those_below_them_are_taken(store: Database, address: str) -> None:
    assert World(store, mail_domains=["lab.org", "@Other.edu"]).ask(email=address)


@pytest.mark.parametrize("address", ["a@example.org", "a@notlab.org", "a@lab.org.example.com"])
def test_an_address_elsewhere_is_an_error_in_form_terminal_and_retry(store: Database, address: str) -> None:
    before = World(store)
    job = before.accept(email=address)
    before.settle()
    before.see(job, JobState.FAILED, stopped_at=before.clock.now)
    before.settle()
    world = World(store, mail_domains=["lab.org"])

    said = []
    for ask in (
        lambda: world.submit(key="view:9", email=address, x="0,256"),
        lambda: world.ask(email=address),
        lambda: world.steering.retry(job.id, actor="U01DEMO", token=SecretStr(TOKEN), email=address),
    ):
        with pytest.raises(InvalidRequest) as wrong:
            ask()
        said.append(wrong.value.errors)

    assert said == [{"email": "Mail goes only to addresses at lab.org; write one of those."}] * 3


def test_the_whole_way_from_a_stranger_s_mail_to_the_form_of_whoever_names_them_next(
    serve: Serve, tmp_path: Path
) -> None:
    with serve(tmp_path, working=True) as served:
        assert served.submit(email=GUEST).ok
        job = served.rows.jobs()[0]
        links = served.nomads.core.visits._links
        address = links.to_end_mail(GUEST)
        assert address.startswith(served.url)
        assert httpx.get(address).status_code == 200
        assert served.submit(email=GUEST, x="0,128").ok, "opening the link ends nothing"
        assert httpx.post(address, data={"List-Unsubscribe": "One-Click"}).status_code == 200
        assert served.submit(email=GUEST, x="0,256").errors == {
            "email": "This address has asked for no more mail; write another one."
        }
        until(lambda: served.nomads.core.queries.card_of(job.id), what="the card")
