"""`python3 -m pipelines.classifier …` runs the pipeline; with `convert` it turns the files of 2018 into weights."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

USAGE = "python -m pipelines.classifier convert components.npy model.pkl weights.npz"


def convert(argv: Sequence[str], *, out: TextIO, err: TextIO) -> int:
    """Write the weights from the published files. Returns the exit code; the last line on `err` says what is wrong."""
    from contract.program import DONE
    from pipelines.classifier import model, published
    from pipelines.common.program import Failure, WrongRequest

    try:
        if len(argv) != 3:
            raise WrongRequest(f"Three files are needed: {USAGE}")
        components, forest, target = map(Path, argv)
        try:
            weights = published.convert(model.read(components), model.read(forest))
        except published.Refused as refusal:
            raise WrongRequest(f"This is not the published classifier: {refusal}.") from None
        try:
            target.write_bytes(weights.to_bytes())
        except OSError as error:
            raise Failure(f"{target} cannot be written: {error.strerror}.") from None
    except Failure as failure:
        print(failure, file=err)
        return failure.code
    print(
        f"{target}: {len(weights.roots)} trees with {len(weights.left)} nodes over {len(weights.components)} features",
        file=out,
    )
    return DONE


if __name__ == "__main__":
    if sys.argv[1:2] == ["convert"]:
        raise SystemExit(convert(sys.argv[2:], out=sys.stdout, err=sys.stderr))
    # a SIGTERM during the imports waits until there is a handler
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    from pipelines.classifier.driver import run

    run()
