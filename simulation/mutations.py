"""The code, broken in named ways, by which the judge is judged: it has to notice every one.

A mutation replaces a fragment of one method's source. It is undone at the end of the block.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FunctionType

from simulation.crashes import WAYS
from simulation.incidents import NOTHING, Incident, What
from simulation.outside import PUBLIC
from simulation.people import Action, form
from simulation.run import Plan

CROWDED = Plan(bots=3, often=0.1)
"""Several bots, among which one often takes up what another one has begun."""
CALM = Plan(often=0)
"""Nothing goes wrong."""
UNCLEAR = Plan(bots=1, often=0.3, quiet=True, lasts=True)
"""Compute tells nothing by itself, and often makes no sense where it is asked."""


def _at_once(what: str, who: str) -> Plan:
    """Forms, and of each at the same time what somebody does about it."""
    found: list[Action] = []
    for number in range(6):
        words = form(f"V{number}", x=f"0,{256 + number}")
        found.append(Action(2 * number, 100.0 * number, (0.0,), "U1ADA", "submit", words))
        found.append(Action(2 * number + 1, 100.0 * number, (0.0, 0.1), who, what, {"of": number}))
    return Plan(bots=2, often=0.1, actions=[found])


def _all_at_once() -> Plan:
    """Forms that several people submit within a second, where nothing goes wrong."""
    actions = [
        Action(number, 1 + 0.02 * number, (0.0,), "U1ADA", "submit", form(f"V{number}", x=f"0,{256 + number}"))
        for number in range(8)
    ]
    return Plan(bots=3, often=0, actions=[actions])


def _wrong() -> Plan:
    """Forms whose token BOSS refuses, where it often does not answer in time."""
    forms = [form(f"V{number}", x=f"0,{256 + number}", token="canary-token-of-nobody") for number in range(8)]
    actions = [Action(number, 5.0 + number, (0.0,), "U1ADA", "submit", words) for number, words in enumerate(forms)]
    return Plan(often=0.15, actions=[actions])


def _large(**words: object) -> Plan:
    """A form of a large box, where programs end by themselves and nothing else goes wrong."""
    actions = [Action(0, 5.0, (0.0,), "U1ADA", "submit", form("V0", y="0,1024", **words))]
    return Plan(bots=1, often=0, actions=[actions], disturbed=False)


def _archived(**first: Sequence[Incident]) -> Plan:
    """A form for a channel that is archived before the card is posted."""
    actions = [
        Action(0, 5.0, (0.0,), "U1ADA", "submit", form("V0")),
        Action(1, 5.1, (0.0,), "U1ADA", "archive", {"channel": PUBLIC}),
    ]
    away = {"chat.post_card": [Incident(What.AWAY)]}
    return Plan(bots=1, often=0, actions=[actions], disturbed=False, quiet=True, first=away | first)


def _wishes(what: str) -> Plan:
    """Somebody says how they want to be told, and submits."""
    actions = [
        Action(0, 1.0, (0.0,), "U1ADA", what, {}),
        Action(1, 5.0, (0.0,), "U1ADA", "submit", form("V0")),
    ]
    return Plan(bots=1, often=0, actions=[actions], disturbed=False)


def _follows(*then: str) -> Plan:
    """A form, somebody else who wants to hear of its end, and what they do before it comes."""
    actions = [
        Action(0, 5.0, (0.0,), "U1ADA", "submit", form("V0")),
        *(Action(n, 5.0 + n, (0.0,), "U2BEN", what, {"of": 0}) for n, what in enumerate(("submit-the-same", *then), 1)),
    ]
    return Plan(bots=1, often=0, actions=[actions], disturbed=False)


def _first(call: str, *what: What) -> Plan:
    """A form, and what happens at the first calls of a name."""
    actions = [Action(0, 5.0, (0.0,), "U1ADA", "submit", form("V0"))]
    return Plan(bots=1, often=0, actions=[actions], disturbed=False, first={call: [*map(Incident, what)]})


def _still(first: Mapping[str, Sequence[Incident]], *, cancelled: Sequence[float] = ()) -> Plan:
    """A form, which may be cancelled, and two bots, of which one stands still."""
    actions = [
        Action(0, 5.0, (0.0,), "U1ADA", "submit", form("V0")),
        *(Action(n, at, (0.0,), "U1ADA", "cancel", {"of": 0}) for n, at in enumerate(cancelled, 1)),
    ]
    return Plan(bots=2, often=0, actions=[actions], disturbed=False, quiet=True, first=first)


AWAY, LOST, REFUSED = (Incident(what) for what in (What.AWAY, What.LOST, What.REFUSED))
FROZEN = Incident(What.FROZEN, 400)
_UNCLEAR = {"compute.submit": [LOST], "compute.find": 6 * [Incident(What.NONSENSE)]}
"""Compute takes a submission, and does not say so until the submission is given up."""
RUSH, HASTE = _at_once("submit-the-same", "U2BEN"), _at_once("cancel", "U1ADA")
"""Two people submit the same at once; whoever has submitted cancels at once."""
SUBMISSION, LIFECYCLE, LEDGER = (f"bot.application.{name}" for name in ("submission", "lifecycle", "ledger"))
STEERING, PEOPLE, ACCESS, OUTPUT = (f"bot.application.{name}" for name in ("steering", "people", "access", "output"))
QUERIES, TOKENS, BLOCKS = "bot.application.queries", "bot.application.tokens", "bot.domain.blocks"
COMPUTE, CHAT, MAIL = (f"bot.application.worker.effects.{name}" for name in ("compute", "chat", "mail"))
CHECKS, RATES = "bot.domain.checks", "bot.application.rates"
LANES, WATCHER = "bot.application.worker.lanes", "bot.application.worker.watcher"
STALLS = "bot.application.stalls"
OUTBOX, VAULT = "bot.storage.outbox", "bot.storage.vault"


@dataclass(frozen=True)
class Mutation:
    """One way to break the code."""

    name: str
    module: str
    where: str
    """`Class.method`, or a function's name."""
    old: str
    new: str
    plan: Plan = field(default_factory=Plan)
    """Of runs that are apt to show it."""
    seed: int = 1
    """One that has shown it, which is looked at first."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While the block runs, the code is broken so. Raises ValueError where it does not have the fragment once."""
        module = importlib.import_module(self.module)
        function = _function(vars(module), self.where)
        whole = inspect.getsource(module)
        source = inspect.getsource(function)
        if source.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.where} has {self.old!r} {source.count(self.old)} times")
        broken = dict(vars(module))
        exec(compile(whole.replace(source, source.replace(self.old, self.new)), self.module, "exec"), broken)
        before = function.__code__
        function.__code__ = _function(broken, self.where).__code__
        try:
            yield
        finally:
            function.__code__ = before


def _function(names: dict[str, object], where: str) -> FunctionType:
    first, _, rest = where.partition(".")
    found = names[first]
    if rest:
        found = vars(found)[rest]
    found = found.fget if isinstance(found, property) else inspect.unwrap(found)  # type: ignore[arg-type]
    assert isinstance(found, FunctionType)
    return found


MUTATIONS = (
    Mutation(
        "a submission in doubt is not looked for",
        COMPUTE,
        "SubmitEffects._submit",
        "self._compute.find(job.name) if effect.in_doubt else None",
        "None",
        seed=5,
    ),
    Mutation(
        "a submission is made by who may have lost its lease",
        COMPUTE,
        "SubmitEffects._turn",
        "self._ledger.insist(effect)",
        "pass",
        CROWDED,
        seed=14,
    ),
    Mutation(
        "the compute id is not recorded",
        COMPUTE,
        "SubmitEffects._submit",
        "self._lifecycle.submitted(effect, compute_id, token_ref=reference)",
        "self._ledger.done(effect).__enter__()",
    ),
    Mutation(
        "a token is a tag of the job",
        COMPUTE,
        "SubmitEffects._submit",
        "self._compute.submit(work, ",
        "self._compute.submit(__import__('dataclasses').replace(work, "
        "tags={**work.tags, 't': self._tokens.open(reference).get_secret_value()}), ",
    ),
    Mutation(
        "a cancellation does not reach compute",
        COMPUTE,
        "SubmitEffects._cancel",
        "self._compute.cancel(job.compute_id, reason=CANCELLED)",
        "pass",
        CALM,
        seed=58,
    ),
    Mutation(
        "a cancellation is not enqueued",
        STEERING,
        "Steering.cancel",
        "change.enqueue(Kind.CANCEL)",
        "pass",
        CALM,
        seed=58,
    ),
    Mutation(
        "anybody may steer",
        STEERING,
        "Steering.may_steer",
        "actor == job.actor or self._access.commands(actor)",
        "True",
        seed=29,
    ),
    Mutation(
        "a form delivered twice is two jobs",
        SUBMISSION,
        "Submission._take",
        "actor=actor, key=key, work=work",
        "actor=actor, key=key.replace('-', f'{entropy.randbelow(10)}-'), work=work",
        seed=49,
    ),
    Mutation(
        "work that runs is accepted again",
        SUBMISSION,
        "Submission._take",
        "raise AlreadyRunning(twin)",
        "pass",
        RUSH,
        seed=4,
    ),
    Mutation(
        "no mail tells of the acceptance",
        SUBMISSION,
        "_first_effects",
        'effects.append((Kind.MAIL_ACCEPTED, ""))',
        "pass",
    ),
    Mutation("no card is posted", SUBMISSION, "_first_effects", 'effects += [(Kind.CARD, ""), *', "effects += [*"),
    Mutation(
        "an unchecked request is submitted",
        SUBMISSION,
        "_first_effects",
        '(Kind.SUBMIT, job.stage) if job.checked else (Kind.CHECK, "")',
        "(Kind.SUBMIT, job.stage)",
        _wrong(),
        seed=120,
    ),
    Mutation(
        "what BOSS refuses at the check is submitted",
        LIFECYCLE,
        "Lifecycle.check",
        "self.turn_down(effect, _by_axis(refusal.errors))\n            return",
        "answered = self._ledger and __import__('types').SimpleNamespace(size=1, warnings=[])",
        _wrong(),
        seed=120,
    ),
    Mutation(
        "a job that was tried again does not say so",
        SUBMISSION,
        "Submission._take",
        "before.set(retried_as=job.id)",
        "pass",
        seed=46,
    ),
    Mutation(
        "a program is given another box",
        COMPUTE,
        "Launcher._arguments",
        'f"{side.start},{side.stop}"',
        'f"{side.start},{side.stop + 1}"',
    ),
    Mutation(
        "anybody may try a job again",
        STEERING,
        "Steering.retryable",
        'self._only_for(job, actor, "retry")',
        "pass",
        Plan(
            bots=1,
            often=0,
            actions=[
                [
                    Action(0, 5, (0.0,), "U1ADA", "submit", form("V0")),
                    Action(1, 1500, (0.0,), "U2BEN", "retry", {"of": 0}),
                ]
            ],
            disturbed=False,
            quiet=True,
            ends=("fails", "succeeds"),
        ),
    ),
    Mutation(
        "tokens are not sealed",
        VAULT,
        "Vault.put",
        "self._cipher.encrypt(nonce, token.get_secret_value().encode(), reference.encode())",
        "token.get_secret_value().encode() + self._cipher.encrypt("
        "nonce, token.get_secret_value().encode(), reference.encode())",
    ),
    Mutation(
        "a token that compute has stays in the database",
        LIFECYCLE,
        "Lifecycle.submitted",
        "self._tokens.erase(change.transaction, job.token_ref)",
        "pass",
    ),
    Mutation(
        "a token that nobody wants to be saved stays in the database",
        PEOPLE,
        "People._erase_token",
        "self._tokens.erase(transaction, reference)",
        "pass",
        seed=16,
    ),
    Mutation(
        "a cancelled job is told to have failed",
        LIFECYCLE,
        "Lifecycle.observe",
        "if seen.state is JobState.FAILED and cancelled:",
        "if False:",
        seed=30,
    ),
    Mutation(
        "no mail tells of the end",
        LIFECYCLE,
        "Lifecycle.conclude",
        "change.enqueue_once(Kind.MAIL_FINISHED)\n",
        "pass\n",
    ),
    Mutation(
        "the end is not told",
        LIFECYCLE,
        "Lifecycle.conclude",
        "change.tell(last, _ending(job), reply=last.reply)",
        "pass",
    ),
    Mutation(
        "a cancelled job that compute never had does not end",
        LIFECYCLE,
        "Lifecycle.withdraw",
        "change.follow(Observation(JobState.CANCELLED))",
        "pass",
        HASTE,
        seed=4,
    ),
    Mutation(
        "what is turned down does not end",
        LIFECYCLE,
        "Lifecycle.turn_down",
        "_fail(change, reason, cause)",
        "pass",
        _wrong(),
        seed=120,
    ),
    Mutation(
        "a job begins again under the same name",
        LIFECYCLE,
        "_submit_elsewhere",
        "lasting=True,",
        "lasting=False,",
        seed=135,
    ),
    Mutation(
        "the next stage is not submitted",
        LIFECYCLE,
        "Lifecycle.advanced",
        "change.enqueue(Kind.SUBMIT, blocks.label)",
        "pass",
        seed=3,
    ),
    Mutation(
        "a stage that is tried again keeps its name",
        BLOCKS,
        "Blocks.tried_again",
        '"tries": self.tries + 1, ',
        "",
        seed=15,
    ),
    Mutation("an end is not collected", LEDGER, "JobChange._move", "self.enqueue(Kind.COLLECT)", "pass"),
    Mutation(
        "that a program runs is not told",
        LEDGER,
        "JobChange._move",
        "self._enter(JobState.RUNNING, self._running(started))",
        "pass",
    ),
    Mutation(
        "an effect that is done is not marked",
        LEDGER,
        "Ledger._finish",
        "if not transaction.outbox.finish(effect, at=self.clock(), error=error):",
        "if False:",
        replace(_large(), patience=60.0),
    ),
    Mutation(
        "a card in doubt is posted anew",
        CHAT,
        "CardEffects._post",
        "self._chat.find(story, thread=None, key=key) if effect.in_doubt else None",
        "None",
        seed=16,
    ),
    Mutation(
        "a card is posted by who may have lost its lease",
        CHAT,
        "CardEffects._post",
        "self._ledger.insist(effect)",
        "pass",
        CROWDED,
        seed=53,
    ),
    Mutation(
        "where a card stands is forgotten",
        CHAT,
        "CardEffects._post",
        "transaction.messages.posted(job.id, _CARD, timestamp, at=self._ledger.clock())",
        "pass",
    ),
    Mutation(
        "a reply in doubt is posted anew",
        CHAT,
        "ThreadEffects._reply",
        "if timestamp is None and effect.in_doubt:",
        "if False:",
        seed=27,
    ),
    Mutation(
        "a job is told wherever its owner says",
        ACCESS,
        "Access._may_post",
        "if person.startswith(TERMINAL) or",
        "if True or",
        seed=11,
    ),
    Mutation("everybody sees every job", ACCESS, "Access.judged", "if self.commands(person):", "if True:", seed=97),
    Mutation(
        "a home tab shows everybody's jobs",
        QUERIES,
        "Queries.home",
        "recent = transaction.jobs.page(FINAL, actor=person, most=HOME_RECENT)",
        "recent = transaction.jobs.page(FINAL, actor=None, most=HOME_RECENT)",
        seed=39,
    ),
    Mutation(
        "each sending of a mail is another mail",
        MAIL,
        "MailEffects._send",
        'f"<{job.id}.{effect.kind}@{self._domain}>"',
        'f"<{job.id}.{effect.attempts}@{self._domain}>"',
    ),
    Mutation(
        "an effect without an answer is given up as done",
        LANES,
        "LaneRunner._put_off",
        "if effect.attempts >= handler.attempts:",
        "with self._database.begin() as t:\n            t.outbox.finish(effect, at=self._clock())\n"
        "        if effect.attempts >= handler.attempts:",
        seed=5,
    ),
    Mutation(
        "an effect without an answer is not in doubt",
        LANES,
        "LaneRunner._postpone",
        "in_doubt=effect.in_doubt or not undone,",
        "in_doubt=False,",
        seed=16,
    ),
    Mutation(
        "an effect in which something unforeseen happens is lost",
        LANES,
        "LaneRunner._perform",
        "self._postpone_by(back_off(effect.faults + 1), effect, said, fault=True)",
        "with self._database.begin() as t:\n                    t.outbox.finish(effect, at=self._clock())",
        seed=16,
    ),
    Mutation(
        "what an event claims is believed",
        WATCHER,
        "Watcher.listen_once",
        "moved, seen = self._look([job for job, _ in asked])",
        "moved, seen = self._look([job for job, claim in asked if not (claim and self._moves(job, claim))])",
        seed=50,
    ),
    Mutation(
        "what compute does not say is not known to compute",
        WATCHER,
        "Watcher._ask",
        "seen, doubtful, why = error.seen, error.ids, str(error)",
        "seen, doubtful, why = error.seen, (), str(error)",
        UNCLEAR,
        seed=36,
    ),
    Mutation(
        "nobody looks at jobs",
        WATCHER,
        "Watcher.watch_once",
        "for job in watched if job.id",
        "for job in () if job.id",
    ),
    Mutation(
        "the log is shown with the token",
        OUTPUT,
        "Output.tail",
        "masking.hidden_in_lines([line.text for line in found], token)",
        "[line.text for line in found]",
        seed=14,
    ),
    Mutation("submissions keep to no rate", RATES, "Rate.turn", "if wait:", "if wait and False:", _all_at_once()),
    Mutation(
        "nobody is asked before much is run",
        SUBMISSION,
        "Submission.decide",
        "if not (proposal.twin or proposal.heavy):",
        "if not proposal.twin:",
        seed=2,
    ),
    Mutation(
        "what is larger than is allowed is accepted",
        CHECKS,
        "too_large",
        "readable = sizes.voxels if in_blocks",
        "readable = 10**12 if in_blocks",
        _large(z="0,64"),
    ),
    Mutation(
        "the price of more memory is not told",
        BLOCKS,
        "told",
        "memory=before.memory",
        "memory=1",
        _large(),
        seed=3,
    ),
    Mutation(
        "nobody hears what programs that failed have used up",
        BLOCKS,
        "told",
        "return said + lost(",
        "return said if failed else lost(",
        _large(),
    ),
    Mutation(
        "an edit that is wanted while one is made is lost",
        OUTBOX,
        "Outbox.enqueue",
        "if self._connection.execute(_WAITING, values).first() is None:",
        "if self.open(job_id, kind=kind) == 0:",
        seed=16,
    ),
    Mutation(
        "what was found is not told",
        LIFECYCLE,
        "Lifecycle.conclude",
        'update={"summary": summary, "reason": reason}',
        'update={"summary": None, "reason": reason}',
        seed=4,
    ),
    Mutation(
        "nobody foresaw results that make no sense",
        COMPUTE,
        "CollectEffects._found",
        "except (Refused, Unreadable) as error:",
        "except Refused as error:",
        CALM,
        seed=16,
    ),
    Mutation(
        "nobody foresaw a plan that makes no sense",
        COMPUTE,
        "AdvanceEffects._planned",
        "except (NotFound, Unplanned) as error:",
        "except NotFound as error:",
        _large(),
        seed=23,
    ),
    Mutation(
        "a cancellation is asked for once, whatever the answer",
        COMPUTE,
        "SubmitEffects._cancel",
        "if job.compute_id and",
        "if effect.attempts == 1 and job.compute_id and",
        WAYS["a job that is cancelled while compute is away"],
    ),
    Mutation(
        "a reply tells its first step alone",
        CHAT,
        "ThreadEffects._reply",
        "if t.reply == int(effect.subject) and t.text]",
        "if t.reply == int(effect.subject) and t.text][:1]",
        seed=7,
    ),
    Mutation(
        "a preview is not posted",
        CHAT,
        "ThreadEffects._preview",
        "self._chat.post_file(story, thread=thread, name=name, title=title, content=content)",
        "pass",
    ),
    Mutation(
        "a preview in doubt is posted anew",
        CHAT,
        "ThreadEffects._preview",
        "effect.in_doubt and self._chat.find(story, thread=thread, key=name)",
        "False",
        WAYS["a job of whose effects the first answers are lost"],
    ),
    Mutation(
        "a home tab is not shown",
        CHAT,
        "HomeEffects._show",
        "self._chat.show_home(person, self._queries.home(person))",
        "self._queries.home(person)",
        WAYS["a job"],
    ),
    Mutation(
        "a home tab stays as it was",
        LEDGER,
        "JobChange.show",
        "self.enqueue(Kind.HOME)",
        "pass",
        WAYS["a job"],
    ),
    Mutation(
        "no admin is told of an outage",
        CHAT,
        "NoticeEffects._tell",
        "self._chat.tell(admin, text)",
        "pass",
        WAYS["a job that is cancelled while compute is away"],
    ),
    Mutation(
        "no admin is told that an outage is over",
        STALLS,
        "Stalls._end",
        'change.enqueue(Kind.NOTICE, f"{outage.number} {_OVER} {admin}")',
        "pass",
        WAYS["a job that is cancelled while compute is away"],
    ),
    Mutation(
        "a follower is not sent the mail",
        MAIL,
        "MailEffects._send_to_follower",
        "self._mailer.send(replace(letter, to=address))",
        "pass",
        RUSH,
    ),
    Mutation(
        "a follower's mail is not enqueued",
        LIFECYCLE,
        "Lifecycle.conclude",
        "change.enqueue_once(Kind.MAIL_FINISHED, person)",
        "pass",
        RUSH,
    ),
    Mutation(
        "where chat does not tell a follower's address, there is none",
        MAIL,
        "MailEffects._send_to_follower",
        "if address is None:",
        "if False:",
        RUSH,
        seed=4,
    ),
    Mutation(
        "who follows is sent mail, though they want none any more",
        MAIL,
        "MailEffects._send_to_follower",
        "wanted = transaction.people.get(person).preferences.mail",
        "wanted = True",
        _follows("no-mail"),
    ),
    Mutation(
        "who follows is sent mail, though they have left",
        MAIL,
        "MailEffects._send_to_follower",
        "self._access.judged(person, [job])",
        "[True]",
        _follows("leave"),
    ),
    Mutation(
        "an owner is not told of a card that cannot be posted",
        CHAT,
        "ThreadEffects._direct",
        "timestamp = self._chat.post_direct(story, steps, key=key)",
        'timestamp = "0.1"',
        _archived(),
    ),
    Mutation(
        "an owner is not told the end that no channel takes",
        CHAT,
        "_tell_the_end",
        "change.enqueue(Kind.DIRECT, DIRECT_END)",
        "pass",
        _archived(),
    ),
    Mutation(
        "a direct message in doubt is sent anew",
        CHAT,
        "ThreadEffects._direct",
        "self._chat.find_direct(story, key=key) if effect.in_doubt else None",
        "None",
        _archived(**{"chat.post_direct": [Incident(What.LOST)]}),
    ),
    Mutation(
        "who asks for time is called again at once",
        LANES,
        "LaneRunner._put_off",
        "delay = wait if busy and wait is not None else",
        "delay = 0.1 if busy and wait is not None else",
        seed=66,
    ),
    Mutation(
        "the token stays in the log of what was cancelled",
        OUTPUT,
        "Output.redact",
        "self._logs.redact(compute_id, token)",
        "pass",
        seed=3,
    ),
    Mutation(
        "the token stays in the logs of blocks",
        COMPUTE,
        "CollectEffects._masked",
        "(job.exit_code is not None and job.blocks is None)",
        "job.exit_code is not None",
        WAYS["a job in blocks, of which one fails"],
    ),
    Mutation(
        "a token is forgotten in words alone",
        PEOPLE,
        "People.forget_token",
        "self._database.write(forget)",
        "pass",
        seed=46,
    ),
    Mutation(
        "a token is saved for who did not ask",
        SUBMISSION,
        "Submission.submit",
        "form.remember and form.token.get_secret_value() and told",
        "form.token.get_secret_value() and told",
        seed=4,
    ),
    Mutation(
        "a reason is told with the token",
        LIFECYCLE,
        "Lifecycle.observe",
        "(reason,) = self._tokens.masked([seen.reason], self._job(job_id).token_ref)",
        "reason = seen.reason",
        seed=5,
    ),
    Mutation(
        "results are told with the token",
        OUTPUT,
        "Output.summary",
        "token=self._hidden(job)",
        'token=""',
    ),
    Mutation(
        "what programs of a round died of is told with the token",
        COMPUTE,
        "AdvanceEffects._failed",
        "reason=clean[one.reason]",
        "reason=one.reason",
        WAYS["a job in blocks, of which one fails"],
    ),
    Mutation(
        "a stranger gets each mail, too",
        MAIL,
        "MailEffects._send",
        "self._mailer.send(letter)",
        "self._mailer.send(letter); self._mailer.send(replace(letter, to='stranger@else.test'))",
    ),
    Mutation(
        "who wants no mail is sent some",
        LIFECYCLE,
        "Lifecycle.conclude",
        "if change.preferences.mail and job.request.email:",
        "if job.request.email:",
        _wishes("no-mail"),
    ),
    Mutation(
        "who wants to hear of ends alone is told all",
        "bot.domain.people",
        "Preferences.tells",
        "return state in FINAL",
        "return True",
        _wishes("quiet"),
    ),
    Mutation(
        "a submission is given up after two attempts",
        COMPUTE,
        "SubmitEffects.handlers",
        "give_up=partial(self._give_up, cause=Cause.UNKNOWN),",
        "give_up=partial(self._give_up, cause=Cause.UNKNOWN), attempts=2,",
        _first("compute.submit", *3 * [What.AWAY]),
    ),
    Mutation(
        "a mail is given up after two attempts",
        MAIL,
        "MailEffects.handlers",
        "give_up=self._tell)",
        "give_up=self._tell, attempts=2)",
        _first("mailer.send", *3 * [What.AWAY]),
    ),
    Mutation(
        "nobody hears of a mail that is refused",
        MAIL,
        "MailEffects._tell",
        '_say(change, effect, NOT_MAILED, f"{NOT_MAILED} {said}. {ADVICE}")',
        "pass",
        _first("mailer.send", What.REFUSED),
    ),
    Mutation(
        "a job that failed is told to be cancelled",
        LIFECYCLE,
        "_ending",
        'f"Failed{took}: ',
        'f"Cancelled{took}: ',
        seed=5,
    ),
    Mutation(
        "a mail says that a job that failed has finished",
        "bot.application.letters",
        "ending",
        '"has failed"',
        '"has finished"',
        seed=5,
    ),
    Mutation(
        "an end does not mention its owner",
        CHAT,
        "ThreadEffects._named",
        "[story.job.actor] if wishes.mention and wishes.tells(last) else []",
        "[]",
    ),
    Mutation(
        "who stood still takes what others did meanwhile for what lies ahead",
        LANES,
        "LaneRunner.keep_leases",
        "held = list(self._held.values())",
        "held, now = list(self._held.values()), self._clock()\n"
        "        self = __import__('copy').copy(self)\n"
        "        self._clock = lambda: now",
        seed=605,
    ),
    Mutation(
        "a card in doubt is edited by who may have lost its lease",
        CHAT,
        "CardEffects._post",
        "self._ledger.insist(effect)",
        "pass",
        _still({"chat.post_card": [LOST], "chat.find": [FROZEN]}),
        seed=3,
    ),
    Mutation(
        "a reply is edited by who may have lost its lease",
        CHAT,
        "ThreadEffects._reply",
        "self._ledger.insist(effect)",
        "pass",
        _still({"chat.post_reply": [LOST], "chat.find": [FROZEN], "mailer.send": [AWAY, AWAY, AWAY, REFUSED]}),
    ),
    Mutation(
        "a job is cancelled by who may have lost its lease",
        COMPUTE,
        "SubmitEffects._cancel",
        "self._ledger.insist(effect)",
        "pass",
        replace(
            _still(
                {
                    "commit LaneRunner._claim": [*6 * [NOTHING], Incident(What.FROZEN, 40)],
                    "compute.cancel": [REFUSED],
                },
                cancelled=[50],
            ),
            waits=600,
        ),
    ),
    Mutation(
        "who cancels again after a refusal is not heard",
        LIFECYCLE,
        "Lifecycle.not_cancelled",
        "change.set(cancelled_by=None)",
        "pass",
        replace(_still({"compute.cancel": [REFUSED]}, cancelled=[150, 300]), waits=600, bots=1),
    ),
    Mutation(
        "a job is told to have failed that compute cancels, though it has refused to meanwhile",
        LIFECYCLE,
        "Lifecycle.not_cancelled",
        "change.set(cancelled_by=None)",
        "change.set(cancelled_by=None, cancelled_at=None)",
        replace(_still({"compute.cancel": [LOST, REFUSED]}, cancelled=[50]), waits=600, bots=1),
    ),
    Mutation(
        "what compute has of a submission that is given up is left to itself",
        COMPUTE,
        "SubmitEffects._give_up",
        "if compute_id and job.token_ref:",
        "if False:",
        replace(_still(_UNCLEAR), bots=1),
    ),
    Mutation(
        "what compute may have of a submission is left to itself where compute does not answer",
        COMPUTE,
        "SubmitEffects._found",
        "effect.attempts < GIVE_UP",
        "False",
        replace(_still({"compute.submit": [LOST], "compute.find": [REFUSED, AWAY]}), bots=1),
    ),
    Mutation(
        "what compute may have of a submission is left to itself where compute refuses to say so",
        COMPUTE,
        "SubmitEffects._asked",
        "except NomadsError as error:",
        "except NomadsError as error:\n            return None",
        replace(_still({"compute.submit": [LOST], "compute.find": [REFUSED, REFUSED]}), bots=1),
    ),
    Mutation(
        "who cancels a job that cannot be submitted is told that it has failed",
        LIFECYCLE,
        "_fail",
        "if change.job.cancelled_by else",
        "if False else",
        replace(_still({"compute.submit": [AWAY], "compute.find": [REFUSED]}, cancelled=[5.2]), bots=1),
    ),
    Mutation(
        "a job runs with another person's token",
        TOKENS,
        "TokenKeeper.seal",
        "owner, token)",
        "owner, SecretStr('canary-token-of-ben'))",
        WAYS["a job"],
    ),
    Mutation(
        "a job is told in another channel than was asked for",
        SUBMISSION,
        "Submission._job",
        "request=proposal.reviewed.request,",
        "request=proposal.reviewed.request.model_copy(update={'channel': 'C1PUBLIC'}),",
        WAYS["a job in a private channel, of which another member wants to hear"],
    ),
    Mutation(
        "a job's box ends before that which was asked for",
        SUBMISSION,
        "Submission._job",
        "request=proposal.reviewed.request,",
        "request=proposal.reviewed.request.model_copy(update={'x': type(proposal.reviewed.request.x)(0, 251)}),",
        WAYS["a job"],
    ),
    Mutation(
        "a thread does not say why a job failed",
        LIFECYCLE,
        "_ending",
        "{job.reason or 'compute gave no reason'}",
        "compute gave no reason",
        seed=5,
    ),
    Mutation(
        "a thread does not say who cancelled a job",
        LIFECYCLE,
        "_ending",
        "f' by {job.cancelled_by}'",
        "''",
        WAYS["a job that is cancelled while it runs"],
    ),
    Mutation(
        "a job that begins again may be taken back again",
        COMPUTE,
        "Launcher.work",
        "lasting=job.blocks.lasting if job.blocks else job.lasting",
        "lasting=False",
        WAYS["a job whose machine was taken back"],
    ),
    Mutation(
        "a check is given up after two attempts",
        COMPUTE,
        "CheckEffects.handlers",
        "attempts=CHECKS",
        "attempts=2",
        _first("volumes.describe", *4 * [What.AWAY]),
    ),
    Mutation(
        "a card never shows results",
        CHAT,
        "CardEffects._edit",
        "self._chat.edit_card(_listened_to(self._stories, job), timestamp)",
        "self._chat.edit_card(_listened_to(self._stories, job.model_copy(update={'summary': None})), timestamp)",
    ),
    Mutation(
        "a card is edited by who may have lost its lease",
        CHAT,
        "CardEffects._edit",
        "self._ledger.insist(effect)",
        "pass",
        CROWDED,
        seed=1252,
    ),
)
"""Each breaks a promise that somebody outside can see."""
