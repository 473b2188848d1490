"""The two mails of a job."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bot.application.letters import Stranger, acceptance, ending
from bot.domain.results import Link
from bot.domain.states import JobState
from tests.support.stories import a_job, a_story, a_summary


def test_acceptance_names_the_job_and_where_its_results_will_be() -> None:
    mail = acceptance(a_story(), message_id="<1@test>")
    assert mail.to == "demo@example.org"
    assert mail.message_id == "<1@test>"
    assert mail.subject == "NOMADS job abcd1234: accepted"
    assert "demo/cortex" in mail.text
    assert "https://results.test/" in mail.text
    assert "https://results.test/" in mail.html


def test_success_has_summary_and_links_and_says_until_when_they_work() -> None:
    until = datetime(2026, 3, 8, 12, tzinfo=UTC)
    story = a_story(
        a_job(JobState.SUCCEEDED, summary=a_summary(notes=["Demo <model>"])),
        links=[("Table", Link("https://results.test/t?a=1&b=2", until))],
    )
    mail = ending(story, message_id="<2@test>")
    assert mail.subject == "NOMADS job abcd1234: finished"
    assert "1,234 synapses" in mail.text
    assert "Table: https://results.test/t?a=1&b=2" in mail.text
    assert "08 March 2026, 12:00 UTC" in mail.text
    assert 'href="https://results.test/t?a=1&amp;b=2"' in mail.html
    assert "Demo &lt;model&gt;" in mail.html


def test_links_of_which_the_end_is_not_certain_are_promised_nothing_and_new_ones_are_to_be_had() -> None:
    soon, late = datetime(2026, 3, 8, 12, tzinfo=UTC), datetime(2026, 3, 9, 12, tzinfo=UTC)
    links = [("Table", Link("https://s3.test/t", late, at_latest=True)), ("Report", Link("https://s3.test/r", soon))]
    mail = ending(a_story(a_job(JobState.SUCCEEDED), links=links), message_id="<8@test>")
    assert (
        "work until 08 March 2026, 12:00 UTC at the latest; the files stay. Results on the job's card gives new ones."
    ) in mail.text
    at_a_terminal = a_job(JobState.SUCCEEDED, channel=None)
    assert "card" not in ending(a_story(at_a_terminal, links=links), message_id="<9@test>").text


def test_the_mail_about_a_cancelled_job_names_who_did_it() -> None:
    job = a_job(JobState.CANCELLED, cancelled_by="U03ADMIN")
    mail = ending(a_story(job), message_id="<10@test>", cancelled_by="Ada Admin")
    assert "Your NOMADS job was cancelled by Ada Admin." in mail.text
    assert mail.subject == "NOMADS job abcd1234: cancelled"


@pytest.mark.parametrize(
    ("state", "exit_code", "subject", "advice"),
    [
        (JobState.FAILED, 2, "failed", "Correct the request"),
        (JobState.FAILED, 3, "failed", "If it is the token"),
        (JobState.FAILED, 1, "failed", "whoever runs NOMADS"),
        (JobState.FAILED, None, "failed", "whoever runs NOMADS"),
        (JobState.CANCELLED, None, "cancelled", "whenever you like"),
        (JobState.LOST, None, "lost", "results folder"),
    ],
)
def test_any_other_end_has_reason_log_and_what_to_do(
    state: JobState, exit_code: int | None, subject: str, advice: str
) -> None:
    job = a_job(state, exit_code=exit_code, reason="out of <memory>", log_tail=("one", "two & three"))
    mail = ending(a_story(job), message_id="<3@test>")
    assert mail.subject == f"NOMADS job abcd1234: {subject}"
    assert "Reason: out of <memory>" in mail.text
    assert "two & three" in mail.text
    assert "out of &lt;memory&gt;" in mail.html
    assert advice in mail.text


def test_a_stranger_gets_no_address_of_the_bots_own_disk_but_the_name_of_whom_to_ask() -> None:
    stranger = Stranger(asked_by="Ada", stop="", otherwise="NOMADS <nomads@lab.test>")
    links = [("Table", Link("file:///srv/nomads/results/t", None))]
    story = a_story(a_job(JobState.SUCCEEDED), links=links, address="file:///srv/nomads/results/")
    for mail in (
        acceptance(story, message_id="<4@test>", stranger=stranger),
        ending(story, message_id="<5@test>", stranger=stranger),
    ):
        assert "file:" not in mail.text + mail.html
        assert "The results are kept on the machine that runs NOMADS: ask Ada for them." in mail.text
    assert "file:///srv" in acceptance(story, message_id="<6@test>").text


def test_without_a_web_a_stranger_is_told_whom_to_write_to_and_no_link_is_promised() -> None:
    stranger = Stranger(asked_by="Ada", stop="", otherwise="NOMADS <nomads@lab.test>")
    for mail in (
        acceptance(a_story(), message_id="<4@test>", stranger=stranger),
        ending(a_story(a_job(JobState.FAILED)), message_id="<5@test>", stranger=stranger),
    ):
        assert "that Ada asked for" in mail.text
        assert "To end such mail you can tell Ada, or write to NOMADS <nomads@lab.test>." in mail.text
        assert "NOMADS &lt;nomads@lab.test&gt;" in mail.html
        assert mail.unsubscribe == ""
        assert "whoever asks" not in mail.text


def test_without_a_page_of_results_no_mail_names_one() -> None:
    for mail in (
        acceptance(a_story(address=""), message_id="<6@test>"),
        ending(a_story(a_job(JobState.SUCCEEDED, summary=a_summary()), address=""), message_id="<7@test>"),
    ):
        assert "All files" not in mail.text
        assert "Results will be at" not in mail.text
