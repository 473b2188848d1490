"""Which channel of an experiment fills which role of a pipeline.

A pipeline names its roles, and for each of them parts of channel names, the best first: `postsynaptic = ["psd"]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def candidates(parts: Sequence[str], names: Sequence[str]) -> list[str]:
    """The channels whose lower-cased names hold one of the parts, the best first.

    Earlier parts win over later ones, then shorter names, then the alphabet. The order of `names` says nothing.
    """
    rank = {name: i for name in names for i, part in reversed(list(enumerate(parts))) if part in name.lower()}
    return sorted(rank, key=lambda name: (rank[name], len(name), name))


def choose(roles: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, str]:
    """Role to the best of its candidates, in the order of the roles; a role that no channel fills is absent.

    One channel may be chosen for several roles; `shared` finds such roles.
    """
    return {role: found[0] for role, parts in roles.items() if (found := candidates(parts, names))}


def shared(chosen: Mapping[str, str]) -> tuple[str, str] | None:
    """The first two roles for which one channel was chosen; None where every role has a channel of its own."""
    first: dict[str, str] = {}
    for role, name in chosen.items():
        if name in first:
            return first[name], role
        first[name] = role
    return None


def wanted(role: str, parts: Sequence[str]) -> str:
    """The channel a role needs, for the middle of a sentence: `presynaptic channel (with synapsin in its name)`."""
    return f"{role} channel (with {' or '.join(parts)} in its name)"
