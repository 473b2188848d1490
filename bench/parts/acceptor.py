"""The application without a front end, accepting jobs."""

from __future__ import annotations

import statistics
import time

from pydantic import SecretStr

from bench.processes import questions, say
from bot.app import build_core
from bot.application.review import Answered
from bot.application.submission import Proposal
from bot.settings import Settings

TIMES = 500


def main() -> None:
    """Accept TIMES jobs for every question; answer with the median and the 99th percentile of seconds a job."""
    core = build_core(Settings(_env_file=None))
    core.database.migrate()
    values = {"pipeline": "nomads-unsupervised", "collection": "demo", "experiment": "cortex", "email": "a@example.org"}
    values |= {"x": "0,512", "y": "0,512", "z": "0,16", "channel": "C01SYNAPSES"}
    answered = Answered(readable=True, checked=True, size=8_388_608, largest=8_388_608)
    say()
    for round_, _ in enumerate(questions()):
        taken = []
        for number in range(TIMES):
            began = time.perf_counter()
            token, key = SecretStr("demo-token"), f"view:{round_}:{number}"
            reviewed = core.submission.review(values, token)
            proposal = Proposal(reviewed=reviewed, answered=answered, expected=None)
            core.submission.accept(proposal, actor="U01DEMO", key=key, again=True)
            taken.append(time.perf_counter() - began)
        say(p50=statistics.median(taken), p99=statistics.quantiles(taken, n=100)[98])
    core.database.close()


if __name__ == "__main__":
    main()
