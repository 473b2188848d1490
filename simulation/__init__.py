"""A lab in which everything fails, in one thread and by a seed: people, bots, and all that they talk to.

    python -m simulation --seed 7            # one history
    python -m simulation --seeds 10000       # many, each judged

The same seed and commit give the same history, to the byte.
"""
