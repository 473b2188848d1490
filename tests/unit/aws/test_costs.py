"""What an idle installation costs: the arithmetic, and that docs/aws.md says the same."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from bot.aws.costs import BOT_GB, PROGRAM_GB, idle, total
from tests.support.template import BOTS, properties, resources, template

DOC = Path(__file__).parents[3] / "docs" / "aws.md"
DOCUMENT = DOC.read_text(encoding="utf-8")
ARCHITECTURES = ("x86_64", "arm64")


def table(bot: str, architecture: str) -> str:
    """The items as docs/aws.md has them."""
    rows = [f"| {item.what} | {item.arithmetic} | ${item.dollars} |" for item in idle(bot, architecture)]
    return "\n".join([*rows, f"| **together** | | {total(idle(bot, architecture))} |"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("bot", BOTS)
def test_the_document_has_the_items_and_their_sum(bot: str, architecture: str) -> None:
    assert table(bot, architecture) in DOCUMENT


def test_an_item_is_its_amount_for_a_month_at_its_price() -> None:
    processor = idle("fargate", "x86_64")[0]

    assert processor.arithmetic == "0.25 vCPU × 730 h × $0.04048"
    assert processor.dollars == Decimal("7.39")


def test_what_is_counted_is_what_the_template_makes() -> None:
    [container] = properties("Task")["ContainerDefinitions"]
    amounts = {item.what: item.amount for item in idle("fargate", "x86_64")}
    assert amounts["Fargate, processor"] == Decimal(properties("Task")["Cpu"]) / 1024
    assert amounts["Fargate, memory"] == Decimal(properties("Task")["Memory"]) / 1024
    assert amounts["RDS storage (gp3)"] == Decimal(properties("Database")["AllocatedStorage"])
    assert (properties("Database")["DBInstanceClass"], properties("Database")["MultiAZ"]) == ("db.t4g.micro", False)
    assert amounts["RDS db.t4g.micro, one zone"] == 1
    assert amounts["secrets of the bot"] == len(container["Secrets"]) == len(resources("AWS::SecretsManager::Secret"))
    disks = {item.what: item.amount for item in idle("instance", "x86_64")}["EBS disks (gp3)"]
    assert disks == sum(one["Ebs"]["VolumeSize"] for one in properties("BotInstance")["BlockDeviceMappings"])
    stored = {bot: {item.what: item.amount for item in idle(bot, "x86_64")}["images in ECR, at most"] for bot in BOTS}
    assert stored["elsewhere"] == 3 * 2 * PROGRAM_GB, "without the bot's"
    assert stored["fargate"] == stored["instance"] == 3 * (2 * PROGRAM_GB + BOT_GB)
    assert len(resources("AWS::ECR::Repository")) == 3
    assert properties("BotInstance")["InstanceType"] == {"Fn::If": ["Arm", "t4g.micro", "t3.micro"]}
    paid_by_the_hour = ("NatGateway", "LoadBalancer", "EIP", "Cluster::")
    assert not [r for r in template()["Resources"].values() if any(kind in r["Type"] for kind in paid_by_the_hour)]
