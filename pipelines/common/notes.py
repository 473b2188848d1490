"""Sentences that are shown with a run's results, and those that say what is wrong with channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contract.program import MAX_NOTE, MAX_NOTES
from pipelines.common.channels import Channel
from pipelines.common.words import fitting, joined, listed

CUT = " … (the report has all of it)"
"""How a note ends that is too long for results.json."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """A sentence that is shown with the results, and its place among them."""

    text: str
    brief: str = ""
    """What is said instead where the text is too long for results.json."""
    first: bool = False
    """Whether it comes before all else, as one that says that what was found is worth nothing."""

    @property
    def short(self) -> str:
        """It in MAX_NOTE characters at most; what has to be cut is cut between two words, and says so."""
        if len(self.text) <= MAX_NOTE:
            return self.text
        if self.brief and len(self.brief) <= MAX_NOTE:
            return self.brief
        return self.text[: MAX_NOTE - len(CUT)].rpartition(" ")[0] + CUT


def in_short(notes: Sequence[Note]) -> list[str]:
    """What results.json has of notes: MAX_NOTES of them at most, of which the last says how many are left out."""
    said = [note.short for note in notes]
    if len(said) <= MAX_NOTES:
        return said
    left = len(said) - MAX_NOTES + 1
    return [*said[:-left], f"{left} further notes are left out here; the report has all of them."]


def of_channels(channels: Sequence[Channel]) -> Iterator[Note]:
    """What is wrong with channels, the weightiest first, in one sentence of all that share it. All have been read."""
    for names in _copies(channels):
        yield _of("", names, " hold the same voxels: what they show says nothing of synapses.")
    constant: dict[int, list[str]] = {}
    missing: list[str] = []
    blank: dict[tuple[int, ...], list[str]] = {}
    for channel in channels:
        if channel.missing:
            missing.append(channel.name)
        if channel.constant:
            constant.setdefault(channel.highest, []).append(channel.name)
        elif where := channel.blank:
            blank.setdefault(tuple(where), []).append(channel.name)
    for value, names in constant.items():
        those, are, show = ("channel", "is", "it shows") if len(names) == 1 else ("channels", "are", "they show")
        yield _of(f"The {those} ", names, f" {are} {value} everywhere in this box: {show} nothing.")
    if missing:
        those = "channel" if len(missing) == 1 else "channels"
        yield _of(f"Parts of the {those} ", missing, " are not stored: they were read as the fill value.")
    for sections, names in blank.items():
        are = "is" if len(sections) == 1 else "are"
        yield _of(f"{listed(sections).capitalize()} of ", names, f" {are} blank: nothing is to be found there.")


def _of(begin: str, names: Sequence[str], end: str) -> Note:
    """A sentence about several channels, which names fewer of them where it would be too long."""
    brief = fitting(lambda count: f"{begin}{joined(names, count)}{end}", len(names), MAX_NOTE)
    return Note(text=f"{begin}{joined(names)}{end}", brief=brief)


def _copies(channels: Sequence[Channel]) -> list[list[str]]:
    """The names of the channels that hold the same voxels, together; those that show nothing are left out."""
    groups: list[list[Channel]] = []
    for channel in channels:
        if channel.constant:
            continue
        group = next((group for group in groups if group[0].same(channel)), None)
        if group:
            group.append(channel)
        else:
            groups.append([channel])
    return [[channel.name for channel in group] for group in groups if len(group) > 1]
