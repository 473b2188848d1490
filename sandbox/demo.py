"""The demo on one machine: a person submits a job in the stand-in workspace, and the conversation is printed."""

from __future__ import annotations

import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from sandbox.boss import DEMO_TOKEN, BossStandIn
from sandbox.house import House
from sandbox.levers import kept, levers

COMMAND = "submit nomads-unsupervised demo/shifted x=0,512 y=0,512 z=0,16"
SHIFTED = {5: (6, -9), 9: (-8, 7)}
"""Sections of demo/shifted whose presynaptic channel lies off, and by how many pixels (y, x)."""
CHANNEL = "#synapses"
VOLUME = "Demo cortex"
"""The name of the demo volume's second door."""
PATIENCE = 120
"""Seconds the sample job may take."""


class Disappointment(Exception):
    """A step of the demo failed; the text says which."""


def demo(*, once: bool) -> int:
    """Run the sample job and print the conversation; then stay, unless `once`. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="nomads-demo-") as folder, House() as house:
        log = Path(folder) / "bot.log"
        shift(house.boss)
        settings = house.environment(Path(folder) / "data") | _doors(house, Path(folder))
        with kept(settings, log=log) as bot:
            try:
                house.slack.wait_for_connection(30)
                _Conversation(house).play()
            except (Disappointment, TimeoutError) as problem:
                print(f"demo: {problem}\n--- what the bot said:\n{log.read_text()[-4000:]}", file=sys.stderr)
                return 1
            if once:
                print("demo: ok")
                return 0
            print(f"\nThe workspace is at {house.slack.url} (Ctrl-C ends it). BOSS token: {DEMO_TOKEN}")
            data = Path(folder) / "data"
            house.slack.offer([(one.name, one.says, one.pull) for one in levers(house, bot, data)])
            return _stay(lambda: bot.alive)


def _doors(house: House, folder: Path) -> dict[str, str]:
    """Settings by which the demo volume is offered through a second door: by a name, beside BOSS's collection."""
    listed = folder / "volumes.toml"
    listed.write_text(f'[[volumes]]\nname = "{VOLUME}"\naddress = "{house.boss.address}"\n')
    return {"NOMADS_VOLUMES": str(listed), "NOMADS_VOLUME_ROOTS": house.boss.url}


def shift(boss: BossStandIn) -> None:
    """Add the public experiment demo/shifted: demo/cortex, but Synapsin is shifted in the sections SHIFTED."""
    volume = boss.cortex
    if volume is None:
        raise Disappointment("the stand-in has no demo/cortex")
    channels = {name: volume.bricks(name) for name in volume.channels}
    channels["Synapsin"] = volume.bricks("Synapsin").shifted(SHIFTED)
    boss.add("demo", "shifted", shape=volume.shape, voxel_nm=volume.voxel_nm, channels=channels, public=True)


def _stay(alive: Callable[[], bool]) -> int:
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    while not over.wait(1):
        if not alive():
            print("demo: the bot has ended", file=sys.stderr)
            return 1
    return 0


class _Conversation:
    """Plays one person's actions, and prints what the person sees as it happens."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._slack = house.slack
        self._person = house.slack.person()
        self._said: set[str] = set()

    def play(self) -> None:
        """Submit a job, follow it, and check the links. Raises Disappointment."""
        print(f"you       /nomads {COMMAND}")
        ack = self._person.slash("/nomads", COMMAND, channel=CHANNEL)
        view = self._slack.view_of(self._person)
        if not view:
            raise Disappointment(f"the form did not open: {ack}")
        print(f"modal     {view['title']['text']}: {', '.join(_labels(view))}")
        offered = [option["text"]["text"] for option in self._person.suggest(view, "collection", "demo")]
        print(f"modal     Collection offers {', '.join(offered)}")
        if not {"demo", f"{VOLUME} (volume)"} <= {*offered}:
            raise Disappointment("the demo volume is not offered through two doors")
        ack = self._person.submit(view, {"token": "wrong token"})
        for field, text in ack.errors.items():
            print(f"modal     {field}: {text}")
        if not ack.errors:
            raise Disappointment("a token with a space in it was taken")
        ack = self._person.submit(view, {"token": DEMO_TOKEN})
        if not ack.ok:
            raise Disappointment(f"the form was not taken: {ack.errors or ack.error}")
        print(f"modal     closed after {ack.seconds * 1000:.0f} ms")
        self._slack.wait_for(self._over, PATIENCE, "the end of the job")
        self._check()

    def _over(self) -> bool:
        for message in self._slack.messages(CHANNEL):
            place = "thread" if message.get("thread_ts") not in (None, message["ts"]) else "card"
            self._say(message["ts"], place, _texts(message))
            for file in message.get("files") or []:
                self._say(file["id"], "thread", [f"[picture] {file['title']} ({file['size']:,} bytes)"])
        for number, mail in enumerate(self._house.mail.messages):
            self._say(f"mail-{number}", "mail", [f"{mail['Subject']} → {mail['To']}"])
        texts = [text for message in self._slack.messages(CHANNEL) for text in _texts(message)]
        if any(text.startswith(("Failed", "Lost")) for line in texts for text in line.splitlines()):
            raise Disappointment("the job failed")
        shown = any(message.get("files") for message in self._slack.messages(CHANNEL))
        ended = any("✅ Finished" in text for text in texts)  # on the card, which is edited every three seconds at most
        return len(self._house.mail.messages) == 2 and shown and ended

    def _say(self, key: str, place: str, texts: list[str]) -> None:
        for line in (part for text in texts for part in _plain(text)):
            if f"{key}{line}" not in self._said:
                self._said.add(f"{key}{line}")
                print(f"{place:9} {line}", flush=True)

    def _check(self) -> None:
        """Check that every link given to the person can be opened. Raises Disappointment."""
        texts = [text for message in self._slack.messages(CHANNEL) for text in _texts(message)]
        links = re.findall(r"<(http[^|>]+)\|", "\n".join(texts))
        if not any(re.search(r"synapses.*Finished", text) for text in texts):
            raise Disappointment("no synapses were told of")
        told: set[str] = set()
        if not any("/v/" in link for link in links):
            raise Disappointment("the results are not offered in three dimensions")
        for link in sorted({link for link in links if "/results/" in link or "/v/" in link}):
            answer = httpx.get(link)
            if answer.status_code != 200:
                raise Disappointment(f"{link} answers {answer.status_code}")
            page = "View in 3D" if "/v/" in link else "All files"
            name = page if link.endswith("/") else link.rpartition("/")[2]
            if name in told:  # the card's link to the folder and the thread's are signed apart
                continue
            told.add(name)
            start = re.match(r"https?://[^/]+/\w+/", link)
            print(f"link      {name}: {len(answer.content):,} bytes from {start[0] if start else ''}…")


def _plain(text: str) -> list[str]:
    """Lines of Slack's mark-up as a person reads them; a fact of a card (bold heading and text) is one line."""
    text = re.sub(r"<!date\^[^|>]*\|([^>]*)>|<[^|>]+\|([^>]*)>|<(@\w+)>", lambda m: m[1] or m[2] or m[3], text)
    text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace("`", "")
    heading, bold, rest = text.removeprefix("*").partition("*\n")
    if bold and text.startswith("*"):
        return [f"{heading}: {', '.join(rest.splitlines())}"]
    return text.splitlines()


def _labels(view: dict[str, Any]) -> list[str]:
    return [block["label"]["text"] for block in view["blocks"] if "label" in block]


def _texts(message: dict[str, Any]) -> list[str]:
    texts = []
    for block in message.get("blocks") or []:
        parts = [block.get("text"), *(block.get("fields") or []), *(block.get("elements") or [])]
        texts += [part["text"] for part in parts if part and isinstance(part.get("text"), str)]
    return texts
