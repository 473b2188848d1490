"""Service, store and worker together, on both databases: what a job becomes, and what is told of it, once."""

from __future__ import annotations

import itertools
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from bot.application.forecast import Confirm
from bot.application.ledger import LeaseLost
from bot.application.people import People
from bot.application.submission import Proposal
from bot.application.worker.effects.compute import CheckEffects
from bot.application.worker.handling import GIVE_UP
from bot.application.worker.lanes import LaneRunner
from bot.domain.catalog import Limits
from bot.domain.checks import Prices
from bot.domain.errors import Busy, InvalidRequest, Refused, TooLate, Unavailable
from bot.domain.job import AlreadyRunning, Job
from bot.domain.messages import Step
from bot.domain.outbox import Kind, Lane
from bot.domain.states import JobState
from bot.domain.volume import Experiment
from bot.domain.work import Observation, Progress
from bot.slack import cards
from bot.storage.engine import Database
from tests.support.rows import Rows
from tests.support.waiting import until
from tests.support.world import TOKEN, World

_numbers = itertools.count()


@pytest.fixture
def world(store: Database) -> World:
    return World(store)


def summary(**more: object) -> bytes:
    return json.dumps(
        {"counts": {"synapses": 12}, "files": [{"name": "synapses.csv", "title": "Table"}], **more}
    ).encode()


def test_a_job_is_told_from_acceptance_to_results(world: World) -> None:
    job = world.accept()
    world.settle()
    world.clock.advance(30)
    world.see(job, JobState.RUNNING, started_at=world.clock.now)
    world.settle()
    world.clock.advance(120)
    world.results.put(job.folder, "results.json", summary(preview="preview.png"))
    world.results.put(job.folder, "preview.png", b"PNG")
    world.results.put(job.folder, "synapses.csv", b"id")
    world.see(job, JobState.SUCCEEDED, stopped_at=world.clock.now)
    world.settle()

    assert world.job(job).state is JobState.SUCCEEDED
    assert world.thread == [
        f"Accepted as job {job.id}.",
        "Running, after waiting 30 s.",
        "12 synapses. Finished after 2 min 0 s.",
    ]
    assert [reply.key for reply in world.chat.replies] == [f"{job.id}-reply-{n}" for n in (1, 2, 3)]
    (card,) = world.chat.cards
    assert card.story.job.state is JobState.SUCCEEDED
    (preview,) = world.chat.files
    assert preview.content == b"PNG"
    assert [mail.subject for mail in world.mailer.sent] == [
        f"NOMADS job {job.id}: accepted",
        f"NOMADS job {job.id}: finished",
    ]
    assert "https://nomads.test/results/" in world.mailer.sent[0].text
    assert "12 synapses" in world.mailer.sent[1].text
    assert "synapses.csv" in world.mailer.sent[1].html


def test_thread_card_and_mail_say_how_much_of_what_was_found_is_there_by_chance(world: World) -> None:
    job = world.accept()
    world.settle()
    chance = {"count": 3, "share": 0.25, "low": 0.1, "high": 0.4}
    world.results.put(job.folder, "results.json", summary(chance=chance))
    world.see(job, JobState.SUCCEEDED)
    world.settle()

    found = "12 synapses; about 3 of them by chance (25 %, 10 to 40)"
    assert world.thread[-1].startswith(f"{found}. Finished")
    assert f"*Found*\n{found}" in str([block.to_dict() for block in cards.card(world.chat.cards[0].story)]).replace(
        "\\n", "\n"
    )
    assert f"{found}\n" in world.mailer.sent[-1].text


def test_card_thread_and_mail_lead_to_the_view_in_3d(world: World) -> None:
    job = world.accept()
    world.settle()
    view = {"voxel_nm": [50, 4, 4], "start": [0, 0, 0], "shape": [8, 64, 64], "at": [1, 2, 3]}
    layers = [{"name": "annotations/info"}]
    world.results.put(job.folder, "annotations/info", b"{}")
    world.results.put(job.folder, "results.json", summary(view=view, files=layers))
    world.see(job, JobState.SUCCEEDED)
    world.settle()

    link = re.compile(r"<https://nomads\.test/v/[^|>]+/\|View in 3D>")
    assert link.search(str([block.to_dict() for block in cards.card(world.chat.cards[0].story)]))
    story = world.chat.replies[-1].story
    step = Step(text="Finished.", at=world.clock.now, state=JobState.SUCCEEDED)
    assert link.search(str([block.to_dict() for block in cards.reply(story, [step])]))
    assert re.search(r"View in 3D: https://nomads\.test/v/\S+/\n", world.mailer.sent[-1].text)


def test_steps_that_follow_within_two_seconds_are_one_reply(world: World) -> None:
    job = world.accept()
    world.settle()
    world.clock.advance(1.5)
    world.see(job, JobState.RUNNING, started_at=world.clock.now)
    world.settle()
    (reply,) = world.chat.replies
    assert reply.texts == [f"Accepted as job {job.id}.", "Running, after waiting 2 s."]
    world.clock.advance(2.5)
    world.see(job, JobState.SUCCEEDED, stopped_at=world.clock.now)
    world.settle()
    assert len(world.chat.replies) == 2


def test_a_program_too_quick_to_be_seen_running_is_told_to_have_run(world: World) -> None:
    job = world.accept()
    world.settle()
    world.clock.advance(10)
    started = world.clock.now - timedelta(seconds=4)
    world.results.put(job.folder, "results.json", b'{"counts": {"synapses": 0}}')
    world.see(job, JobState.SUCCEEDED, started_at=started, stopped_at=world.clock.now)
    world.settle()
    assert world.thread[1:] == ["Running, after waiting 6 s.", "0 synapses. Finished after 4 s."]


def test_a_failure_is_told_with_its_reason_the_last_20_lines_and_what_to_do(world: World) -> None:
    job = world.accept()
    world.settle()
    world.compute.print(job.name, *(f"line {n}" for n in range(30)), f"BOSS refused {TOKEN}.")
    world.see(job, JobState.FAILED, exit_code=3, started_at=world.clock.now, stopped_at=world.clock.now)
    world.settle()
    failed = world.job(job)
    assert failed.reason == "BOSS refused •••."
    assert len(failed.log_tail) == 20
    assert world.thread[-1] == "Failed after 0 s: BOSS refused •••."
    mail = world.mailer.sent[-1]
    assert mail.subject == f"NOMADS job {job.id}: failed"
    assert "line 29" in mail.text
    assert "If it is the token" in mail.text
    assert TOKEN not in repr(world.chat.messages) + repr(world.mailer.sent)


def test_the_token_of_public_data_is_not_masked(world: World) -> None:
    job = world.accept(token="public")
    world.settle()
    world.compute.print(job.name, "This data is public.")
    world.see(job, JobState.FAILED, exit_code=1)
    world.settle()
    assert world.job(job).log_tail == ("This data is public.",)


def test_an_old_image_without_results_json_has_its_files_listed(world: World) -> None:
    job = world.accept()
    world.settle()
    world.results.put(job.folder, "synapses.csv", b"1")
    world.see(job, JobState.SUCCEEDED)
    world.settle()
    assert [title for title, _ in world.chat.replies[-1].story.links] == ["synapses.csv"]


def test_a_results_json_that_lies_about_itself_is_not_believed(world: World) -> None:
    job = world.accept()
    world.settle()
    world.results.put(job.folder, "results.json", json.dumps({"preview": "../../secret", "counts": 4}).encode())
    world.see(job, JobState.SUCCEEDED)
    world.settle()
    assert [title for title, _ in world.chat.replies[-1].story.links] == ["results.json"]
    assert not world.chat.files


@pytest.mark.parametrize("lie", ["a/../b", "a//b", "/etc/passwd", "..", "a\\\\b", "a\u0000b"])
def test_a_file_named_outside_its_folder_silences_nothing(world: World, lie: str) -> None:
    job = world.accept()
    world.settle()
    world.results.put(job.folder, "results.json", json.dumps({"files": [{"name": lie}]}).encode())
    world.see(job, JobState.SUCCEEDED)
    world.settle()
    assert world.thread[-1].startswith(
        "The results could not be read: results.json cannot be used: "
        "files whose name is no path in the results folder (1)."
    )
    assert [title for title, _ in world.chat.replies[-1].story.links] == ["results.json"]
    assert len(world.mailer.sent) == 2


def test_files_with_ordinary_names_are_listed_whatever_their_letters(world: World) -> None:
    job = world.accept()
    world.settle()
    world.results.put(job.folder, "it's é (1).txt", b"1")
    world.results.put(job.folder, "bell\x07.txt", b"1")
    world.see(job, JobState.SUCCEEDED)
    world.settle()
    assert [title for title, _ in world.chat.replies[-1].story.links] == ["it's é (1).txt"]
    assert len(world.mailer.sent) == 2


def test_a_viewer_that_is_no_plain_address_is_not_believed(world: World) -> None:
    job = world.accept()
    world.settle()
    world.results.put(job.folder, "synapses.csv", b"1")
    world.results.put(job.folder, "results.json", summary(viewer="https://x.y/|evil> <!here>"))
    world.see(job, JobState.SUCCEEDED)
    world.settle()
    assert [title for title, _ in world.chat.replies[-1].story.links] == ["Table"]
    assert world.thread[-1].startswith("12 synapses.")


def test_a_reason_with_a_nul_byte_harms_neither_its_job_nor_the_others(world: World) -> None:
    jobs = [world.accept() for _ in range(3)]
    world.settle()
    for job in jobs:
        world.compute.print(job.name, "\x1b[31mlast\x00 words\x1b[0m")
        world.compute.tell(job.name, Observation(JobState.FAILED, "bad\x00 reason", exit_code=1))
    world.worker.watcher.watch_once()
    world.settle()
    assert {world.job(job).state for job in jobs} == {JobState.FAILED}
    assert {world.job(job).reason for job in jobs} == {"last  words"}


def test_a_job_whose_news_cannot_be_recorded_does_not_stop_the_watching_of_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = world.accept(), world.accept()
    world.settle()
    observe = world.lifecycle.observe

    def fails_for_one(job_id: str, seen: Observation, **more: Any) -> bool:
        if job_id == broken.id:
            raise RuntimeError("unforeseen")
        return observe(job_id, seen, **more)

    monkeypatch.setattr(world.lifecycle, "observe", fails_for_one)
    for job in (broken, sound):
        world.compute.tell(job.name, Observation(JobState.RUNNING))
    assert world.worker.watcher.watch_once() == 1
    assert world.job(sound).state is JobState.RUNNING


def test_an_effect_told_to_come_back_later_is_never_given_up(world: World) -> None:
    world.chat.fail_next(Unavailable("no answer"), call="post_card")
    job = world.accept()
    world.worker.lanes.drain()
    world.nearly_give_up(job, before=2)
    world.chat.fail_next(Busy("429", retry_after=1), call="post_card", times=10)
    world.settle()
    assert world.chat.calls.count("post_card") == 1 + 10 + 1
    assert len(world.chat.cards) == 1
    assert len(world.chat.replies) == 1


def test_one_denial_alone_does_not_make_a_job_lost(world: World) -> None:
    job = world.accept()
    world.settle()
    world.clock.advance(1000)
    known = dict(world.compute._observations)
    world.compute._observations.clear()
    world.worker.watcher.watch_once()
    world.compute._observations.update(known)
    world.worker.watcher.watch_once()
    world.compute._observations.clear()
    world.worker.watcher.watch_once()
    assert world.job(job).state is JobState.SUBMITTED


def test_what_a_worker_still_does_while_it_stops_stays_its_own(store: Database) -> None:
    """A call that outlasts the lease after SIGTERM: its lease is renewed until it is done."""
    world = World(store, lease=0.3)
    world.clock.run()
    with world.compute.hanging("submit"):
        job = world.accept()
        thread = threading.Thread(target=world.worker.run)
        thread.start()
        until(lambda: "submit" in world.compute.calls)
        world.worker.stop()
        beyond = world.clock() + timedelta(seconds=1)
        until(lambda: world.clock() > beyond)
        assert not Rows(store).claim(Lane.COMPUTE, limit=1, lease_for=timedelta(seconds=1), at=world.clock())
    thread.join()
    assert world.job(job).state is JobState.SUBMITTED
    assert len(world.compute.works) == 1


def test_the_same_key_twice_is_one_job(world: World) -> None:
    first, second = world.accept(key="view:V1"), world.accept(key="view:V1")
    assert first.id == second.id
    world.settle()
    assert len(world.compute.works) == 1
    assert len(world.chat.cards) == 1
    assert world.rows.tokens == 1


def test_a_double_click_from_many_threads_is_one_job(world: World) -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(world.accept(key="view:V2").id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert world.rows.tokens == 1


def test_a_submission_whose_answer_was_lost_is_found_and_not_repeated(world: World) -> None:
    job = world.accept()
    world.compute.crash_after_submit()
    world.settle()
    assert [work.name for work in world.compute.works] == [job.name]
    assert world.job(job).state is JobState.SUBMITTED
    assert world.job(job).compute_id


def test_a_worker_that_dies_after_submitting_leaves_a_job_that_another_finds(world: World) -> None:
    job = world.accept()
    (effect,) = world.rows.claim(Lane.COMPUTE, limit=1, lease_for=timedelta(seconds=15), at=world.clock.now)
    assert effect.job_id == job.id
    world.compute.fail_after(KeyboardInterrupt(), call="submit")
    with pytest.raises(KeyboardInterrupt):  # the process ends here, its answer unread
        world.handlers[effect.kind].perform(effect, job)
    world.worker = world.another_worker()
    world.worker.lanes.drain()
    assert world.job(job).state is JobState.ACCEPTED  # the lease still holds
    world.clock.advance(16)
    world.settle()
    assert world.job(job).state is JobState.SUBMITTED
    assert len(world.compute.works) == 1


@pytest.mark.parametrize("call", ["post_card", "post_reply"])
def test_a_message_whose_answer_was_lost_is_found_and_not_posted_twice(world: World, call: str) -> None:
    world.chat.fail_after(Unavailable("no answer"), call=call)
    world.accept()
    world.settle()
    assert len(world.chat.cards) == 1
    assert len(world.chat.replies) == 1


def test_a_preview_whose_answer_was_lost_is_not_shown_twice(world: World) -> None:
    job = world.accept()
    world.settle()
    world.results.put(job.folder, "results.json", summary(preview="preview.png"))
    world.results.put(job.folder, "preview.png", b"PNG")
    world.chat.fail_after(Unavailable("no answer"), call="post_file")
    world.see(job, JobState.SUCCEEDED)
    world.settle()
    assert len(world.chat.files) == 1


def test_a_mail_sent_twice_carries_the_same_message_id(world: World) -> None:
    world.mailer.fail_after(Unavailable("no answer"), call="send")
    world.accept()
    world.settle()
    first, second = world.mailer.sent
    assert first.message_id == second.message_id


def test_a_throttled_compute_is_asked_again_and_nothing_is_lost(world: World) -> None:
    world.compute.fail_next(Busy("slow down", retry_after=2), call="submit", times=5)
    job = world.accept()
    world.settle()
    assert world.job(job).state is JobState.SUBMITTED
    assert "find" not in world.compute.calls  # who was told to come back knows that nothing was done


def test_a_service_that_is_busy_and_names_no_time_is_asked_ever_more_seldom_and_not_for_ever(world: World) -> None:
    world.compute.fail_next(Busy("Throttling"), call="submit", times=GIVE_UP)
    job = world.accept()
    world.settle(patience=6 * 3600)
    assert 70 < world.compute.calls.count("submit") < 140, "every five minutes, and not twice a second"
    assert world.job(job).state is JobState.ACCEPTED
    world.nearly_give_up(job)
    world.settle(patience=3600)
    assert world.job(job).state is JobState.FAILED
    assert world.job(job).reason == "Throttling"
    assert (world.compute.works, world.rows.tokens) == ([], 0)


def test_a_service_that_names_a_short_time_is_not_given_up_in_minutes(world: World) -> None:
    world.compute.fail_next(Unavailable("503", retry_after=1), call="submit", times=GIVE_UP)
    job = world.accept()
    world.settle(patience=6 * 3600)
    assert world.job(job).state is JobState.ACCEPTED
    assert world.compute.calls.count("submit") < 140, "it is asked every five minutes, whatever it names"


def test_slack_is_obeyed_when_it_says_when_to_come_back(world: World) -> None:
    world.chat.fail_next(Busy("429", retry_after=30), call="post_card")
    world.accept()
    world.worker.lanes.drain()
    world.clock.advance(29)
    world.worker.lanes.drain()
    assert not world.chat.cards
    world.clock.advance(1)
    world.worker.lanes.drain()
    assert len(world.chat.cards) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        "SES did not take the mail: Email address is not verified: demo@example.org (MessageRejected)",
        "SES did not take the mail: The domain is not verified (MailFromDomainNotVerifiedException)",
        "SES did not take the mail: Email sending is paused for this account. (SendingPausedException)",
    ],
)
def test_a_refused_mail_is_told_in_the_thread_once_and_without_the_address(world: World, refusal: str) -> None:
    world.mailer.fail_next(Refused(refusal), call="send", times=2)
    job = world.accept(email="demo@example.org")
    world.settle()
    world.see(job, JobState.SUCCEEDED, stopped_at=world.clock.now)
    world.settle()
    said = "\n".join(world.thread)
    assert said.count("Its mail could not be sent: SES did not take the mail") == 1
    assert refusal.rpartition(" ")[2].strip("()") in said
    assert "example.org" not in said
    assert world.rows.open_effects(job.id) == 0


def test_a_mail_that_is_refused_at_the_end_alone_is_told_with_the_end(world: World) -> None:
    job = world.accept()
    world.settle()
    world.mailer.refused.add(job.request.email)
    world.see(job, JobState.SUCCEEDED, stopped_at=world.clock.now)
    world.settle()
    (told,) = [step for step in world.thread if "Its mail could not be sent: The mail server does not take" in step]
    assert told == world.thread[-1]
    assert job.request.email not in told


def test_a_dead_mail_server_holds_back_nothing_else(world: World) -> None:
    world.mailer.fail_next(Unavailable("connection refused"), call="send", times=20)
    job = world.accept()
    world.worker.lanes.drain()
    assert world.job(job).state is JobState.SUBMITTED
    assert len(world.chat.cards) == 1
    world.settle(patience=3 * 3600)
    assert len(world.mailer.sent) == 1


def test_a_refused_submission_fails_the_job_with_the_reason(world: World) -> None:
    world.compute.fail_next(Refused("The queue nomads-queue does not exist."), call="submit")
    job = world.accept()
    world.settle()
    assert world.job(job).state is JobState.FAILED
    assert "nomads-queue does not exist" in world.thread[-1]
    assert world.mailer.sent[-1].subject.endswith("failed")
    assert world.rows.tokens == 0


def test_late_repeated_and_disordered_news_change_nothing(world: World) -> None:
    job = world.accept()
    world.settle()
    world.see(job, JobState.RUNNING)
    assert not world.lifecycle.observe(job.id, Observation(JobState.RUNNABLE))
    assert not world.lifecycle.observe(job.id, Observation(JobState.RUNNING))
    world.see(job, JobState.SUCCEEDED)
    for state in JobState:
        assert not world.lifecycle.observe(job.id, Observation(state))
    assert world.job(job).state is JobState.SUCCEEDED
    world.settle()
    assert len(world.mailer.sent) == 2


def test_a_job_that_compute_no_longer_knows_is_lost_and_told_to_be(world: World) -> None:
    job = world.accept()
    world.settle()
    world.compute.lose(job.name)
    world.worker.watcher.watch_once()
    world.worker.watcher.watch_once()
    assert world.job(job).state is JobState.SUBMITTED  # too early: compute may merely not know it yet
    world.clock.advance(301)
    world.worker.watcher.watch_once()
    world.settle()
    assert world.job(job).state is JobState.LOST
    assert world.thread[-1].startswith("Lost: compute no longer knows this job")


def test_cancelling_before_submission_submits_nothing(world: World) -> None:
    job = world.accept()
    assert world.steering.cancel(job.id, actor="U01DEMO")
    world.settle()
    assert world.job(job).state is JobState.CANCELLED
    assert not world.compute.works
    assert world.rows.tokens == 0


def test_cancelling_a_running_job_ends_it_and_says_cancelled(world: World) -> None:
    job = world.accept()
    world.settle()
    world.see(job, JobState.RUNNING)
    assert world.steering.cancel(job.id, actor="U01DEMO")
    world.settle()
    world.worker.watcher.watch_once()
    world.settle()
    assert world.job(job).state is JobState.CANCELLED
    assert world.thread[-1].startswith("Cancelled")
    with pytest.raises(TooLate, match="has ended already: cancelled"):
        world.steering.cancel(job.id, actor="U01DEMO")


def test_a_job_that_finished_before_it_could_be_cancelled_stays_finished(world: World) -> None:
    job = world.accept()
    world.settle()
    world.steering.cancel(job.id, actor="U01DEMO")
    world.see(job, JobState.SUCCEEDED)
    world.settle()
    assert world.job(job).state is JobState.SUCCEEDED


def test_the_token_moves_to_the_compute_s_own_secrets_and_leaves_the_database(store: Database) -> None:
    world = World(store, separate_secrets=True)
    job = world.accept()
    world.settle()
    assert world.rows.tokens == 0
    assert world.compute.works[0].token.startswith("memory:")
    assert world.job(job).token_ref == world.compute.works[0].token


def test_a_token_kept_here_is_erased_when_its_job_has_ended(world: World) -> None:
    job = world.accept()
    world.settle()
    assert world.rows.tokens == 1
    world.see(job, JobState.SUCCEEDED)
    world.settle()
    assert world.rows.tokens == 0
    assert world.job(job).token_ref is None


def test_the_program_is_told_what_the_contract_says_and_never_the_token(world: World) -> None:
    job = world.accept()
    world.settle()
    (work,) = world.compute.works
    assert [*work.command, *work.arguments] == [
        *("python3", "-m", "pipelines.unsupervised"),
        *("--host", "boss.test", "--col", "demo", "--exp", "cortex"),
        *("--z-range", "0,16", "--y-range", "0,512", "--x-range", "0,512"),
        *("--results-uri", f"file:///memory/{job.folder}/"),
        *("--results-key", job.request.results_key, "--predictions", "lab/predictions"),
    ]
    assert TOKEN not in repr(work)
    assert work.tags == {"job": job.id, "user": "U01DEMO", "pipeline": "nomads-unsupervised"}


def test_a_viewer_in_the_settings_is_handed_on(store: Database) -> None:
    world = World(store, viewer="https://viewer.test/")
    world.accept()
    world.settle()
    (work,) = world.compute.works
    assert list(work.arguments[-2:]) == ["--viewer", "https://viewer.test/"]


def test_the_card_shows_how_far_a_running_program_is_at_most_every_three_seconds(world: World) -> None:
    job = world.running()
    (card,) = world.chat.cards
    for second in range(10):
        world.compute.print(job.name, f"progress 0.{second}5 reading", "a line of its own")
        world.worker.watcher.watch_once()
        world.settle()
        world.clock.advance(1)

    shown = [story.job.progress for story, _ in card.history] + [card.story.job.progress]
    assert [p for p in dict.fromkeys(shown) if p] == [Progress(part, "reading") for part in (0.35, 0.65, 0.95)]
    assert card.story.job.state is JobState.RUNNING


def test_a_program_that_says_nothing_new_costs_no_edit(world: World) -> None:
    job = world.running()
    world.compute.print(job.name, "progress 0.50 reading")
    edits = []
    for _ in range(3):
        world.clock.advance(4)
        world.worker.watcher.watch_once()
        world.settle()
        edits.append(world.chat.calls.count("edit_card"))
    assert len(set(edits)) == 1


def test_many_running_jobs_share_the_looks_at_their_progress(world: World) -> None:
    jobs = [world.running() for _ in range(14)]
    for job in jobs:
        world.compute.print(job.name, "progress 0.50 reading")
    world.clock.advance(20)
    world.worker.watcher.watch_once()
    assert world.compute.calls.count("log_tail") == 10
    world.clock.advance(20)
    world.worker.watcher.watch_once()
    assert all(world.job(job).progress for job in jobs)


def test_a_log_that_cannot_be_read_holds_nothing_up(world: World) -> None:
    job = world.running()
    world.clock.advance(4)
    world.compute.fail_next(Unavailable("CloudWatch is away"), call="log_tail")
    world.worker.watcher.watch_once()
    world.see(job, JobState.SUCCEEDED)
    world.settle()
    assert world.job(job).state is JobState.SUCCEEDED


def test_progress_that_comes_after_the_end_changes_nothing(world: World) -> None:
    job = world.running()
    world.see(job, JobState.SUCCEEDED)
    assert not world.lifecycle.progressed(job.id, Progress(0.5, "reading"))
    assert world.job(job).progress is None


def test_every_mistake_is_named_at_once_by_its_field(world: World) -> None:
    values = {
        "pipeline": "nope",
        "collection": "a b",
        "experiment": "",
        "x": "5",
        "y": "9,3",
        "z": "0,1",
        "email": "nobody",
    }
    with pytest.raises(InvalidRequest) as caught:
        world.submission.review(values, SecretStr("two words"))
    assert set(caught.value.errors) == {"pipeline", "collection", "experiment", "x", "y", "email", "token"}
    assert caught.value.errors["pipeline"] == "There is no pipeline of that name; there is nomads-unsupervised."


def test_a_box_beyond_the_limit_is_refused_with_its_size_and_the_largest_that_fits(store: Database) -> None:
    world = World(store, max_bytes=2_000_000)
    with pytest.raises(InvalidRequest) as caught:
        world.submit(key="k", x="100,1024", y="0,512", z="0,16")
    assert caught.value.errors == {
        "x": "This box is 15.1 MB: 7,569,408 voxels in 2 channels; a job may read 2 MB. "
        "The largest box from this corner that fits: x 100, 350; y 0, 250; z 0, 16."
    }
    assert world.accept(x="100,350", y="0,250", z="0,16")


def test_a_pipeline_s_own_limit_counts_where_it_is_smaller(world: World) -> None:
    pipeline = world.catalog.get("nomads-unsupervised")
    assert pipeline is not None
    limited = pipeline.model_copy(update={"limits": Limits(voxels=1000)})
    limiting = World(world.store, pipeline=limited)
    with pytest.raises(InvalidRequest) as caught:
        limiting.accept()
    assert "this pipeline takes 1,000 voxels at most. Choose a box" in caught.value.errors["x"]


def test_a_job_without_a_channel_is_told_by_mail_alone(world: World) -> None:
    job = world.accept(channel=None, actor="cli:demo")
    world.settle()
    world.see(job, JobState.SUCCEEDED)
    world.settle()
    assert not world.chat.messages
    assert len(world.mailer.sent) == 2


def test_an_effect_of_one_job_waits_for_the_one_before_it_in_its_lane_only(world: World) -> None:
    world.chat.fail_next(Unavailable("slow"), call="post_card")
    first = world.accept()
    world.clock.advance(1)
    second = world.accept()
    world.worker.lanes.drain()
    assert [m.story.job.id for m in world.chat.messages] == [second.id, second.id]
    assert {work.tags["job"] for work in world.compute.works} == {first.id, second.id}
    world.settle()
    assert len(world.chat.messages) == 4


def test_only_one_worker_watches_at_a_time(world: World) -> None:
    lasting = timedelta(seconds=5)
    assert world.rows.lead("watch", holder="a", at=world.clock.now, lasting=lasting)
    assert not world.rows.lead("watch", holder="b", at=world.clock.now, lasting=lasting)
    assert world.rows.lead("watch", holder="a", at=world.clock.now, lasting=lasting)
    world.clock.advance(6)
    assert world.rows.lead("watch", holder="b", at=world.clock.now, lasting=lasting)


def test_a_lease_that_is_renewed_is_not_given_away(world: World) -> None:
    world.accept()
    held = world.rows.claim(Lane.MAIL, limit=1, lease_for=timedelta(seconds=15), at=world.clock.now)
    world.clock.advance(10)
    world.rows.renew(held, lease_for=timedelta(seconds=15), at=world.clock.now)
    world.clock.advance(10)
    assert not world.rows.claim(Lane.MAIL, limit=1, lease_for=timedelta(seconds=15), at=world.clock.now)
    world.clock.advance(6)
    (again,) = world.rows.claim(Lane.MAIL, limit=1, lease_for=timedelta(seconds=15), at=world.clock.now)
    assert again.in_doubt


def test_an_answer_that_asks_to_come_back_later_may_hide_that_the_work_was_done(world: World) -> None:
    job = world.accept()
    world.compute.fail_after(Unavailable("502 of a proxy", retry_after=5), call="submit")
    world.settle()
    assert [work.tags["job"] for work in world.compute.works] == [job.id]


def test_a_service_that_always_asks_to_come_back_later_does_not_keep_a_job_open_for_ever(world: World) -> None:
    job = world.accept(checked=False)
    world.volumes.fail_next(Unavailable("503", retry_after=600), call="describe", times=1000)
    for _ in range(60):
        world.worker.lanes.drain()
        world.clock.advance(601)
    assert world.job(job).state is JobState.FAILED
    assert world.rows.tokens == 0


# A clock that goes back

AN_HOUR = 3600.0


def test_effects_that_were_due_before_the_clock_went_back_are_performed_at_once(world: World) -> None:
    world.chat.fail_next(Unavailable("no answer"), call="post_card")
    job = world.accept()
    world.worker.lanes.drain()  # the card is put off, and everything else is done
    world.clock.put(-AN_HOUR)
    world.worker.lanes.keep_leases()
    world.clock.advance(1)
    world.worker.lanes.drain()
    assert [m.story.job.id for m in world.chat.messages if m.thread is None] == [job.id]
    world.settle()
    assert world.rows.open_effects() == 0


def test_what_asked_for_patience_is_not_asked_sooner_because_the_clock_went_back(world: World) -> None:
    world.chat.fail_next(Busy("patience", retry_after=60), call="post_card")
    world.accept()
    world.worker.lanes.drain()
    world.clock.put(-AN_HOUR)
    world.worker.lanes.keep_leases()
    world.clock.advance(50)
    world.worker.lanes.drain()
    assert not world.chat.messages
    world.clock.advance(11)
    world.worker.lanes.drain()
    assert world.chat.messages


def test_the_lease_of_a_worker_that_died_ends_in_time_although_the_clock_went_back(world: World) -> None:
    world.accept()
    lease = timedelta(seconds=15)
    (dead,) = world.rows.claim(Lane.MAIL, limit=1, lease_for=lease, at=world.clock.now)
    world.clock.put(-AN_HOUR)
    world.worker.lanes.keep_leases()
    world.clock.advance(14)
    assert not world.rows.claim(Lane.MAIL, limit=1, lease_for=lease, at=world.clock.now)  # it may be alive
    world.clock.advance(2)
    (taken,) = world.rows.claim(Lane.MAIL, limit=1, lease_for=lease, at=world.clock.now)
    assert taken.id == dead.id
    assert taken.in_doubt


def test_watching_goes_on_although_the_leader_died_and_the_clock_went_back(world: World) -> None:
    lasting = timedelta(seconds=5)
    assert world.rows.lead("watch", holder="a", at=world.clock.now, lasting=lasting)
    world.clock.put(-AN_HOUR)
    assert not world.rows.lead("watch", holder="b", at=world.clock.now, lasting=lasting)  # it may be alive
    world.clock.advance(6)
    assert world.rows.lead("watch", holder="b", at=world.clock.now, lasting=lasting)


def test_progress_and_edits_go_on_although_the_clock_went_back(world: World) -> None:
    world.worker = world.another_worker(edit_interval=3)
    job = world.accept()
    world.settle()
    world.see(job, JobState.RUNNING)
    for fraction in ("0.10", "0.20"):
        world.compute.print(job.name, f"progress {fraction} reading")
        world.clock.advance(4)
        world.worker.watcher.watch_once()
        world.worker.lanes.drain()
    world.clock.put(-AN_HOUR)
    world.worker.lanes.keep_leases()
    world.compute.print(job.name, "progress 0.90 reading")
    for _ in range(2):
        world.worker.watcher.watch_once()
        world.worker.lanes.drain()
        world.clock.advance(4)
    (card,) = world.chat.cards
    progress = card.story.job.progress
    assert progress is not None
    assert progress.part == 0.9


def test_what_is_cached_for_a_moment_is_read_again_although_the_clock_went_back(world: World) -> None:
    assert world.people.preferences("U01DEMO").mention
    world.clock.put(-AN_HOUR)
    another = People(ledger=world.ledger, tokens=world.tokens)
    another.prefer("U01DEMO", mention=False)
    world.clock.advance(3)
    assert not world.people.preferences("U01DEMO").mention


@pytest.mark.parametrize("put", [-AN_HOUR, AN_HOUR])
def test_a_job_that_waits_long_is_told_in_time_whatever_the_clock_does(world: World, put: float) -> None:
    job = world.accept()
    world.settle()
    world.see(job, JobState.RUNNABLE, reason="No machine.")
    world.worker.watcher.watch_once()
    world.clock.advance(300)
    world.clock.put(put)
    world.worker.watcher.watch_once()
    assert world.job(job).waiting == ""
    world.clock.advance(301)
    world.worker.watcher.watch_once()
    world.worker.lanes.keep_leases()
    world.settle()
    assert world.thread[-1] == "Waiting to run for 10 min 1 s. No machine."


def test_a_job_is_not_lost_for_what_compute_said_before_another_process_looked(world: World) -> None:
    job = world.accept()
    world.settle()
    world.compute.lose(job.name)
    world.clock.advance(AN_HOUR)
    world.worker.watcher.turn()
    world.clock.advance(AN_HOUR)
    with world.store.begin() as transaction:
        lasting = timedelta(minutes=1)
        assert transaction.leader.acquire("watch", holder="another", at=world.clock.now, lasting=lasting)
    world.worker.watcher.turn()

    world.clock.advance(AN_HOUR)
    world.worker.watcher.turn()
    assert world.job(job).state is JobState.SUBMITTED
    world.clock.advance(AN_HOUR)
    world.worker.watcher.turn()
    assert world.job(job).state is JobState.LOST


@pytest.mark.parametrize("put", [-AN_HOUR, AN_HOUR])
def test_a_job_that_compute_does_not_know_is_lost_in_time_whatever_the_clock_does(world: World, put: float) -> None:
    job = world.accept()
    world.settle()
    world.worker.watcher.watch_once()
    world.compute.lose(job.name)
    world.clock.put(put)
    for _ in range(3):
        world.clock.advance(90)
        world.worker.watcher.watch_once()
    assert world.job(job).state is JobState.SUBMITTED
    world.clock.advance(31)
    world.worker.watcher.watch_once()
    world.worker.watcher.watch_once()
    assert world.job(job).state is JobState.LOST


def test_a_run_that_ended_before_it_started_by_the_clock_took_nobody_knows_how_long(world: World) -> None:
    job = world.running()
    started = world.job(job).started_at
    assert started
    world.see(job, JobState.SUCCEEDED, stopped_at=started - timedelta(hours=1))
    world.settle()
    assert world.job(job).took is None
    with world.store.read() as transaction:
        assert transaction.jobs.runs("nomads-unsupervised", most=10) == []


def test_an_age_is_believed_of_the_clock_once_and_grows_with_the_time_that_passes(world: World) -> None:
    ages, began = world.ledger.ages, world.clock.now
    world.clock.advance(60)
    assert ages.of("a", began) == timedelta(seconds=60)
    assert ages.of("a", began + timedelta(hours=1)) == timedelta(), "it was written before the clock went back"
    world.clock.put(-AN_HOUR)
    world.clock.advance(5)
    assert ages.of("a", began) == timedelta(seconds=65)
    assert ages.of("a", began + timedelta(hours=1)) == timedelta(seconds=5)


def test_a_finished_effect_cannot_be_finished_by_a_worker_that_lost_its_lease(world: World) -> None:
    job = world.accept()
    (stale,) = world.rows.claim(Lane.COMPUTE, limit=1, lease_for=timedelta(seconds=15), at=world.clock.now)
    world.clock.advance(16)
    world.settle()
    with pytest.raises(LeaseLost):
        world.lifecycle.submitted(stale, "another-id", token_ref="t")
    assert world.job(job).compute_id == "memory-1"


# Checked against BOSS


def proposal(world: World, **changes: Any) -> Proposal:
    return world.ask(**changes)


def accepted(world: World, found: Proposal, *, again: bool = False) -> Job:
    return world.submission.accept(
        found,
        actor="U01DEMO",
        key=f"proposal-{next(_numbers)}",
        again=again,
    )


def test_what_boss_has_said_is_submitted_at_once_with_its_size_and_expectation(world: World) -> None:
    world.volumes.add("demo", "cortex", channels={"PSD95": "uint16", "Synapsin": "uint8"})
    job = accepted(world, proposal(world))
    world.settle()
    assert world.job(job).state is JobState.SUBMITTED
    assert world.job(job).size == 3 * 512 * 512 * 16


def test_what_boss_could_not_say_is_checked_before_it_is_submitted(world: World) -> None:
    with world.volumes.hanging("describe"):
        found = proposal(world)
    assert not found.answered.checked
    job = accepted(world, found)
    world.volumes.fail_next(Unavailable("BOSS did not answer in time."), call="describe")
    world.worker.lanes.drain()
    assert world.compute.calls.count("submit") == 0
    assert "BOSS did not answer in time" in world.thread[0]
    (card,) = world.chat.cards
    assert not card.story.job.checked
    world.settle()
    assert world.job(job).state is JobState.SUBMITTED
    assert world.chat.cards[0].story.job.checked


def test_an_experiment_that_is_gone_by_then_ends_the_job_with_the_reason_and_nothing_ran(world: World) -> None:
    with world.volumes.hanging("describe"):
        job = accepted(world, proposal(world))
    del world.volumes.there["demo"]["cortex"]
    world.settle()
    job = world.job(job)
    assert (job.state, job.turned_down, world.compute.calls.count("submit")) == (JobState.FAILED, True, 0)
    assert "no experiment “cortex”" in job.reason
    assert job.token_ref is None
    assert any("no experiment" in text for text in world.thread)
    assert [mail.subject for mail in world.mailer.sent][-1] == f"NOMADS job {job.id}: failed"


def test_a_job_that_is_still_being_checked_can_be_cancelled(world: World) -> None:
    with world.volumes.hanging("describe"):
        job = accepted(world, proposal(world))
    assert world.steering.cancel(job.id, actor="U01DEMO")
    world.settle()
    assert (world.job(job).state, world.compute.calls.count("submit")) == (JobState.CANCELLED, 0)


def test_a_check_that_was_done_but_not_recorded_is_done_again_and_submits_once(world: World) -> None:
    with world.volumes.hanging("describe"):
        job = accepted(world, proposal(world))
    (effect,) = world.rows.claim(Lane.COMPUTE, limit=1, lease_for=timedelta(0), at=world.clock())
    assert effect.kind is Kind.CHECK
    world.settle()
    assert world.job(job).state is JobState.SUBMITTED
    assert world.compute.calls.count("submit") == 1


def test_the_same_work_is_found_while_it_runs_and_when_it_was_done(world: World) -> None:
    assert proposal(world).twin is None
    job = accepted(world, proposal(world))
    twin = proposal(world).twin
    assert twin is not None
    assert twin.id == job.id
    assert proposal(world, x="0,511").twin is None
    with pytest.raises(AlreadyRunning):
        accepted(world, proposal(world))
    world.settle()
    world.see(job, JobState.SUCCEEDED)
    twin = proposal(world).twin
    assert twin is not None
    assert twin.state is JobState.SUCCEEDED
    assert accepted(world, proposal(world), again=True).id != job.id


@pytest.mark.parametrize("end", [JobState.FAILED, JobState.LOST])
def test_work_that_failed_is_no_reason_not_to_do_it(world: World, end: JobState) -> None:
    job = accepted(world, proposal(world))
    world.settle()
    world.see(job, end)
    assert proposal(world).twin is None


def test_another_release_of_the_pipeline_is_other_work(world: World) -> None:
    accepted(world, proposal(world))
    pipeline = world.catalog.get("nomads-unsupervised")
    assert pipeline is not None
    world.catalog._pipelines[pipeline.name] = pipeline.model_copy(update={"version": "2"})
    assert proposal(world).twin is None
    world.catalog._pipelines[pipeline.name] = pipeline.model_copy(update={"image": "i@sha256:00"})
    assert proposal(world).twin is None


@pytest.mark.parametrize("ended", [False, True])
def test_nothing_is_said_of_other_people_s_work_that_one_may_not_see(world: World, ended: bool) -> None:
    world.workspace.private["C01PILOT"] = {"U01DEMO", "U02MEMBER"}
    job = accepted(world, proposal(world, channel="C01PILOT"))
    if ended:
        world.settle()
        world.see(job, JobState.SUCCEEDED)

    assert world.ask(actor="U02OTHER").twin is None, "though BOSS shows the data"
    told = world.ask(actor="U02MEMBER").twin
    assert told is not None
    assert told.id == job.id
    if not ended:
        with pytest.raises(InvalidRequest) as refused:
            world.submit(key="view:other", actor="U02OTHER")
        assert job.id not in str(refused.value)


def test_what_runs_take_is_learned_from_five_of_them(world: World) -> None:
    assert proposal(world).expected is None
    for number in range(5):
        job = accepted(world, proposal(world, x=f"0,{100 + number}"))
        world.settle()
        world.see(job, JobState.RUNNING, started_at=world.clock.now)
        world.clock.advance((100 + number) * 0.1)
        world.see(job, JobState.SUCCEEDED, stopped_at=world.clock.now)
        world.settle()
    found = proposal(world).expected
    assert found is not None
    assert found.seconds == pytest.approx(51.2, rel=0.01)


def test_many_who_accept_the_same_work_at_once_start_one_job(store: Database) -> None:
    world = World(store)
    found = proposal(world)

    def take(number: int) -> str:
        try:
            return world.submission.accept(found, actor="U01DEMO", key=f"at-once-{number}").id
        except AlreadyRunning as running:
            return running.job.id

    with ThreadPoolExecutor(8) as people:
        ids = list(people.map(take, range(8)))
    assert len(set(ids)) == 1
    assert Rows(store).count() == 1


def test_a_job_cancelled_while_boss_is_being_asked_is_not_submitted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.volumes.hanging("describe"):
        job = accepted(world, proposal(world))
    describe = world.volumes.describe

    def cancelled_meanwhile(*names: str, **how: Any) -> Experiment:
        world.steering.cancel(job.id, actor="U01DEMO")
        return describe(*names, **how)

    monkeypatch.setattr(world.volumes, "describe", cancelled_meanwhile)
    world.settle()
    assert (world.job(job).state, world.compute.calls.count("submit")) == (JobState.CANCELLED, 0)


def test_a_check_that_boss_never_answers_ends_and_the_person_hears_of_it(world: World) -> None:
    with world.volumes.hanging("describe"):
        job = accepted(world, proposal(world))
    for _ in range(100):
        world.volumes.fail_next(Unavailable("BOSS answered with status 503."), call="describe")
    world.settle(patience=3 * 3600)
    ended = world.job(job)
    assert (ended.state, ended.turned_down, ended.retryable) == (JobState.FAILED, False, True)
    assert "The request could not be checked, time and again: BOSS answered with status 503." in ended.reason


def test_a_job_whose_data_types_boss_does_not_tell_is_not_submitted_by_guess(world: World) -> None:
    world.volumes.add("demo", "cortex", channels={"PSD95": "", "Synapsin": "uint8"})
    found = proposal(world)
    assert not found.answered.checked
    job = accepted(world, found)
    world.worker.lanes.drain()
    assert world.compute.calls.count("submit") == 0
    world.volumes.add("demo", "cortex", channels={"PSD95": "uint64", "Synapsin": "uint8"})
    world.settle()
    assert world.job(job).size == 9 * 512 * 512 * 16


def test_a_box_that_is_too_large_by_its_real_data_types_is_turned_down_by_the_worker(store: Database) -> None:
    world = World(store, max_bytes=10**7)
    world.volumes.add("demo", "cortex", channels={"PSD95": "uint64", "Synapsin": "uint8"})
    with world.volumes.hanging("describe"):
        job = accepted(world, proposal(world))
    world.settle()
    assert world.job(job).turned_down
    assert world.job(job).reason.startswith("x: This box is 37.7 MB: 4,194,304 voxels in 2 channels; a job may read")


def test_a_warning_that_came_late_is_told_all_the_same(world: World) -> None:
    world.volumes.readers["reader"] = ("demo",)
    with world.volumes.hanging("describe"):
        found = world.ask(token="reader")
    accepted(world, found)
    world.settle()
    assert "This token may not write to lab/predictions in BOSS" in world.thread[0]


def test_saved_tokens_leave_no_copies_behind_however_many_are_saved_at_once(store: Database) -> None:
    world = World(store)
    with ThreadPoolExecutor(8) as forms:
        list(forms.map(lambda n: world.people.save_token("U01DEMO", SecretStr(f"canary-token-{n}")), range(8)))
    assert world.rows.tokens == 1
    world.people.forget_token("U01DEMO")
    assert world.rows.tokens == 0


@pytest.mark.parametrize(
    ("limit", "heavy"),
    [
        (Confirm(bytes=10**6), True),
        (Confirm(bytes=10**9), False),
        (Confirm(seconds=3), True),
        (Confirm(seconds=6), False),
        (Confirm(cost=0.001), True),
        (Confirm(cost=1), False),
        (Confirm(), False),
    ],
)
def test_what_is_confirmed_is_the_admin_s_to_say(world: World, limit: Confirm, heavy: bool) -> None:
    pipeline = world.catalog.get("nomads-unsupervised")
    assert pipeline is not None
    timed = pipeline.model_copy(update={"seconds": 5, "cpu": 2})
    confirming = World(world.store, pipeline=timed, prices=Prices(cpu_hour=1), confirm=limit)
    assert confirming.ask().heavy is heavy


def test_a_kind_of_effect_without_a_handler_or_with_two_is_told_at_the_start(world: World) -> None:
    mail = world.mail_effects()
    with pytest.raises(ValueError, match="Two handlers are registered for mail-accepted, mail-finished"):
        LaneRunner(database=world.store, effects=[mail, mail], lease=timedelta(seconds=15))
    check = CheckEffects(ledger=world.ledger, lifecycle=world.lifecycle)
    with pytest.raises(ValueError, match="No handler is registered for submit, advance, cancel, collect"):
        LaneRunner(database=world.store, effects=[check], lease=timedelta(seconds=15))


def test_a_form_that_was_accepted_stays_so_whatever_is_wrong_by_then(world: World) -> None:
    job = world.submit(key="view:1")
    assert isinstance(job, Job)
    world.workspace.trouble = "This channel is archived; choose another one."
    assert world.submit(key="view:1") == job
    with pytest.raises(InvalidRequest) as wrong:
        world.submit(key="view:2", x="0,256")
    assert list(wrong.value.errors) == ["channel"]
