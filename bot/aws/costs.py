"""What an installation that deploy/nomads.yaml made costs while no job runs, item by item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

HOURS = 730
"""Hours of a month, as AWS's own calculator has them."""
PRICES = "list prices of us-east-1, read in 2026 (docs/aws.md says where); other regions cost more, taxes come on top"
"""What the prices below are."""
IMAGES_KEPT = 3
"""How many of each image deploy/nomads.yaml keeps."""
BOT_GB, PROGRAM_GB = Decimal("0.408"), Decimal("0.858")
"""GB of the bot's image and of each of the two programs', as measured unpacked; ECR stores them packed."""


@dataclass(frozen=True)
class Item:
    """One thing that is paid for by the month."""

    what: str
    amount: Decimal
    """How much of it there is, in `unit`."""
    unit: str
    """Such as `vCPU` or `GB`."""
    price: Decimal
    """Dollars for one unit, by the hour where `hourly`, else by the month."""
    hourly: bool = False

    @property
    def dollars(self) -> Decimal:
        """Dollars a month, to the cent."""
        exact = self.amount * self.price * (HOURS if self.hourly else 1)
        return exact.quantize(Decimal("0.01"), ROUND_HALF_UP)

    @property
    def arithmetic(self) -> str:
        """How the dollars come about, such as `0.25 vCPU × 730 h × $0.04048`."""
        hours = f" × {HOURS} h" if self.hourly else ""
        return f"{self.amount} {self.unit}{hours} × ${self.price}"


def _hourly(what: str, amount: str, unit: str, price: str) -> Item:
    return Item(what, Decimal(amount), unit, Decimal(price), hourly=True)


def _monthly(what: str, amount: str, unit: str, price: str) -> Item:
    return Item(what, Decimal(amount), unit, Decimal(price))


_PROGRAMS, _IMAGES = (
    _monthly("images in ECR, at most", str(IMAGES_KEPT * gigabytes), "GB", "0.10")
    for gigabytes in (2 * PROGRAM_GB, 2 * PROGRAM_GB + BOT_GB)
)
_EVENTS = _monthly("SQS, waiting for events", "1.3", "million requests", "0.40")
"""One every two seconds (`bot.application.worker.watcher.LISTEN`); of an account's, the first million are free."""
_ADDRESS = _hourly("public IPv4 address", "1", "address", "0.005")
_FARGATE = {
    "x86_64": ("0.04048", "0.004445"),
    "arm64": ("0.03238", "0.00356"),
}
"""Dollars an hour of a virtual processor and of a GB of memory on Fargate."""
_INSTANCE = {"x86_64": ("t3.micro", "0.0104"), "arm64": ("t4g.micro", "0.0084")}
_DISK = "0.08"
"""Dollars a month of a GB of EBS's gp3."""


def idle(bot: str, architecture: str) -> Sequence[Item]:
    """What is paid for while no job runs, for one of the template's places of the bot and one of its architectures.

    Queues, roles, events, the network and machines that do not run cost nothing. Results, logs and requests cost by
    use, and so do tokens of people: $0.40 a month for each that is stored.
    """
    match bot:
        case "fargate":
            processor, memory = _FARGATE[architecture]
            return (
                _hourly("Fargate, processor", "0.25", "vCPU", processor),
                _hourly("Fargate, memory", "0.5", "GB", memory),
                _hourly("RDS db.t4g.micro, one zone", "1", "instance", "0.016"),
                _monthly("RDS storage (gp3)", "20", "GB", "0.115"),
                _ADDRESS,
                _monthly("secrets of the bot", "4", "secrets", "0.40"),
                _EVENTS,
                _IMAGES,
            )
        case "instance":
            kind, price = _INSTANCE[architecture]
            return (
                _hourly(f"EC2 {kind}", "1", "instance", price),
                _monthly("EBS disks (gp3)", "20", "GB", _DISK),
                _ADDRESS,
                _monthly("secrets of the bot", "3", "secrets", "0.40"),
                _EVENTS,
                _IMAGES,
            )
        case "elsewhere":
            return (_EVENTS, _PROGRAMS)
    raise ValueError(f"there is no {bot}")


def total(items: Sequence[Item]) -> str:
    """The sum in words."""
    return f"${sum(item.dollars for item in items)} a month"
