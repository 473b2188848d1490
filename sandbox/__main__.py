"""`python -m sandbox …`: the stand-ins, started by hand. Reads argv and nothing else."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code. A subcommand's module is imported only when it runs."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="A workspace on your own machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    boss = commands.add_parser("boss", help="serve the BOSS stand-in alone")
    boss.add_argument("--port", type=int, default=9000, help="on 127.0.0.1; 0: any free one (default 9000)")
    demo = commands.add_parser("demo", help="all stand-ins and the bot, with a sample job")
    demo.add_argument("--once", action="store_true", help="end after the sample job")
    pictures = commands.add_parser("pictures", help="take the screenshots of README and docs")
    pictures.add_argument("--folder", type=Path, help="where to write them (default docs)")
    given = parser.parse_args(argv)

    if given.command == "boss":
        from sandbox.boss import serve

        return serve(given.port)
    if given.command == "pictures":
        from sandbox.pictures import DOCS, take

        return take(given.folder or DOCS)
    from sandbox.demo import demo as play

    return play(once=given.once)


if __name__ == "__main__":
    sys.exit(main())
