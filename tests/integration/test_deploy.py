"""`nomads deploy` on an account that moto plays: what it shows, makes, writes, and says when it cannot."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr

from bot.aws.batch import BatchCompute, definition
from bot.aws.clients import Clients
from bot.aws.config import AwsConfig, ToRun
from bot.aws.secrets import AwsSecrets
from bot.aws.stack import Change, Proposal, Stacks, Standing
from bot.domain.errors import NomadsError
from bot.settings import ROOT, Choices, Settings, read
from bot.terminal import images
from bot.terminal.deploy import ARCHITECTURES, _asked, deploy
from bot.terminal.images import content_tag
from sandbox.slack import SlackStandIn
from tests.support.aws import _client as client
from tests.support.aws import aws_world, make_role
from tests.support.stack import complete
from tests.support.template import properties

HOST = "123456789012.dkr.ecr.eu-west-2.amazonaws.com"
TOOL = """#!/bin/sh
if [ "$1" = login ]; then read -r password; set -- "$@" with "$password"; fi
echo "$*" >> {log}
case "$1" in
  image) echo 1000 ;;
  images) echo 1 kB; echo 1 kB ;; # it has a name of make images', too
  from) echo container ;;
  run) case "$*" in *python_version*) echo 3.11.2 ;; *) printf '{status}' ;; esac ;;
  build|bud) while [ "$1" != --iidfile ]; do shift; done; echo sha256:0 > "$2" ;;
esac
"""
"""A stand-in for Docker and buildah: it notes what it is asked for, and what comes on its stdin at a login."""
STATUS = r"Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36\n\n"
"""What Debian says is in each image."""


PROGRAMS = ("unsupervised", "classifier")


class Account:
    """An account, a folder in which the command runs, and a PATH with nothing on it but what is put there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.tools = folder / "tools"
        self.tools.mkdir()
        self._patch = monkeypatch
        self.questions: list[str] = []
        self.commands: list[list[str]] = []
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", str(self.tools))
        monkeypatch.setenv("NOMADS_AWS_REGION", "eu-west-2")
        for settings in (Settings, Choices, AwsConfig, ToRun):
            monkeypatch.setitem(settings.model_config, "env_file", ".env")

    def has(self, tool: str) -> None:
        """Put a stand-in for that program on PATH."""
        program = self.tools / tool
        program.write_text(TOOL.format(log=self.folder / "asked", status=STATUS))
        program.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        """What the program was asked for."""
        log = self.folder / "asked"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if not line.startswith("info ")]

    def deploy(
        self,
        *,
        answer: bool | type[BaseException] = True,
        bot: str = "",
        destroy: bool = False,
        name: str = "nomads",
        stacks: Stacks | None = None,
        parameters: Mapping[str, str] | None = None,
        **given: str,
    ) -> int:
        """One run of the command, at which a person gives that answer to every question."""

        def ask(question: str) -> bool:
            self.questions.append(question)
            if not isinstance(answer, bool):
                raise answer
            return answer

        arguments = argparse.Namespace(
            name=name, bot=bot, set=list({**given, **(parameters or {})}.items()), yes=False, destroy=destroy
        )
        return deploy(arguments, run=self.ran, ask=ask, stacks=stacks)

    def ran(self, argv: Sequence[str]) -> int:
        """Note a further command."""
        self.commands.append(list(argv))
        return 0

    @property
    def env(self) -> dict[str, str]:
        """What stands in `.env`."""
        lines = (self.folder / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def image_of_the_bot(self) -> str:
        """What the bot's container runs, by the template and the stack's parameters: moto loses it in an update."""
        [container] = properties("Task")["ContainerDefinitions"]
        known = {**self.parameters(), "BotImages.RepositoryUri": f"{HOST}/nomads-bot"}
        return re.sub(r"\$\{([\w.]+)\}", lambda found: known[found[1]], container["Image"]["Fn::Sub"])

    def parameters(self) -> dict[str, str]:
        """The stack's parameters."""
        [found] = client("cloudformation").describe_stacks(StackName="nomads")["Stacks"]
        return {one["ParameterKey"]: one["ParameterValue"] for one in found["Parameters"]}


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where bills of materials go instead of this checkout: one is made once, since it takes seconds."""
    return tmp_path_factory.mktemp("bills")


_BUILD = images.build


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """For most tests it is enough that Docker is asked for an image; see `built`."""

    def asked(_: str, image: images.Image, reference: str, *, platform: str) -> list[str]:
        return ["docker", "build", "--platform", platform, "--tag", reference, "--iidfile", os.devnull]

    monkeypatch.setattr(images, "build", asked)
    with aws_world(empty=True), complete():
        yield Account(tmp_path, monkeypatch)


@pytest.fixture
def built(bills: Path, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are built by this checkout's own command."""
    monkeypatch.setattr(images, "build", lambda *image, **kind: [*_BUILD(*image, **kind), "--folder", str(bills)])


@pytest.fixture
def slack(account: Account, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackStandIn]:
    """Slack, whose address and tokens an admin has written into `.env`."""
    with SlackStandIn() as slack:
        lines = [f"SLACK_BOT_TOKEN={slack.bot_token}", f"SLACK_APP_TOKEN={slack.app_token}"]
        (account.folder / ".env").write_text("\n".join(["# ours", *lines, f"SLACK_API_URL={slack.api_url}", ""]))
        yield slack


HERE = ARCHITECTURES.get(platform.machine(), "x86_64")
"""What a first deploy chooses on this machine."""


def pushed(*names: str) -> None:
    """Let ECR have these images under the checkout's tag, as a real push would."""
    for name in names:
        manifest = json.dumps({"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []})
        tag = f"{content_tag(ROOT)}-{HERE}" if name == "bot" else content_tag(ROOT)
        client("ecr").put_image(repositoryName=f"nomads-{name}", imageManifest=manifest, imageTag=tag)


def test_a_new_account_is_shown_costed_made_tried_and_written_down(
    account: Account, slack: SlackStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    account.has("docker")

    account.deploy(bot="elsewhere")

    said = capsys.readouterr().out
    assert "  add     Bucket                AWS::S3::Bucket\n" in said
    assert "While no job runs, Bot=elsewhere costs by the month" in said
    assert "together $1.03 a month" in said
    assert account.questions[0] == "Make the stack nomads in eu-west-2?"
    assert "Attach the policy arn:aws:iam::123456789012:policy/nomads-bot to what the bot runs as" in said
    lines = said.partition("These settings are the bot's, on whichever machine it runs:\n")[2].splitlines()
    written = [f"  {name}={value}" for name, value in account.env.items() if name.startswith("NOMADS_")]
    assert lines[: len(written)] == written
    assert slack.bot_token not in said
    for part in ("compute", "results", "roles", "secrets", "logs", "bucket", "queue", "slack"):
        assert f"\n{part}: ok\n" in said, part
    assert "BOSS_TOKEN=public nomads submit --pipeline nomads-unsupervised" in said


def test_with_a_token_a_small_job_is_offered_and_run(
    account: Account, slack: SlackStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.has("docker")
    account.deploy(bot="elsewhere")
    pushed(*PROGRAMS)
    monkeypatch.setenv("BOSS_TOKEN", "public")

    assert account.deploy() == 0

    assert account.questions[-1].startswith("Run a small job on public data now (nomads submit --pipeline ")
    [command] = account.commands
    assert command[0] == "submit"


def test_what_an_admin_wrote_stays_and_nobody_else_may_read_it(account: Account, slack: SlackStandIn) -> None:
    account.has("docker")

    account.deploy(bot="elsewhere")

    assert (account.folder / ".env").read_text().startswith(f"# ours\nSLACK_BOT_TOKEN={slack.bot_token}\n")
    assert stat.S_IMODE((account.folder / ".env").stat().st_mode) == 0o600
    assert account.env["NOMADS_AWS_QUEUE"] == "nomads-queue"
    assert account.env["NOMADS_AWS_FAIR_SHARE"] == "true"
    assert json.loads(account.env["NOMADS_IMAGES"]).keys() == {"nomads-unsupervised", "nomads-classifier"}
    assert read(ToRun).bucket == account.env["NOMADS_AWS_BUCKET"]


def test_no_is_no(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    assert account.deploy(answer=False) == 1

    assert capsys.readouterr().out.endswith("Nothing was done.\n")
    assert not client("cloudformation").describe_stacks()["Stacks"]
    assert not (account.folder / ".env").exists()


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("tool", ["docker", "buildah"])
def test_images_are_built_and_pushed_and_the_password_is_in_no_command_line(account: Account, tool: str) -> None:
    account.has(tool)

    account.deploy(bot="fargate", Architecture="arm64")

    host, tag = HOST, content_tag(ROOT)
    builds = [line for line in account.asked if line.startswith(("build ", "bud "))]
    wanted = [
        *(f"--target {name} --tag {host}/nomads-{name}:{tag} --platform linux/amd64" for name in PROGRAMS),
        f"--target bot --tag {host}/nomads-bot:{tag}-arm64 --platform linux/arm64",
    ]
    assert [said for line, said in zip(builds, wanted, strict=True) if said not in line] == []
    [login] = [line for line in account.asked if line.startswith("login ")]
    assert login.startswith(f"login --username AWS --password-stdin {host} with ")
    password = login.rpartition(" ")[2]
    assert password
    assert not [line for line in account.asked if password in line and line != login]
    pushes = [f"push {host}/nomads-{name}" for name in (*(f"{name}:{tag}" for name in PROGRAMS), f"bot:{tag}-arm64")]
    assert account.asked[-4:] == [*pushes, f"logout {host}"]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("tool", ["docker", "buildah"])
def test_beside_each_image_that_is_pushed_lies_its_bill_of_materials_by_image_and_tag(
    account: Account, bills: Path, tool: str
) -> None:
    for file in bills.iterdir():
        file.unlink()
    account.has(tool)

    account.deploy(bot="fargate", Architecture="arm64")

    tag = content_tag(ROOT)
    names = (f"nomads_{tag}-arm64", f"nomads-unsupervised_{tag}", f"nomads-classifier_{tag}")
    assert {file.name for file in bills.glob("*.cdx.json")} == {f"{name}.cdx.json" for name in names}
    for name in names:
        parts = {part["name"] for part in json.loads((bills / f"{name}.cdx.json").read_text())["components"]}
        assert {"libc6", "numpy" if "-un" in name or "-cl" in name else "slack-bolt"} <= parts
        assert (bills / f"{name}.id").read_text() == "sha256:0\n"
    inside = [line for line in account.asked if line.startswith("from " if tool == "buildah" else "run ")]
    assert inside
    assert all("sha256:0" in line for line in inside), "what was built, whatever else has its name"


@pytest.mark.usefixtures("built")
def test_without_docker_and_buildah_the_commands_are_told_and_the_bot_waits(
    account: Account, slack: SlackStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert account.deploy(bot="fargate") == 1

    said = capsys.readouterr().out
    assert "There is neither Docker nor buildah here" in said
    assert "  .venv/bin/python -m deploy.images nomads-unsupervised --platform linux/amd64 --tag " in said
    assert account.parameters()["BotCount"] == "0"


def test_the_bot_is_started_once_images_and_tokens_are_there_and_a_second_run_changes_nothing(
    account: Account, slack: SlackStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    account.has("docker")
    account.deploy(bot="fargate")
    assert account.parameters()["BotCount"] == "1"
    secrets = client("secretsmanager")
    assert secrets.get_secret_value(SecretId="nomads-bot/slack-bot-token")["SecretString"] == slack.bot_token
    assert secrets.get_secret_value(SecretId="nomads-bot/slack-app-token")["SecretString"] == slack.app_token
    pushed("unsupervised", "classifier", "bot")
    account.deploy()
    for image in json.loads(account.env["NOMADS_IMAGES"]).values():
        assert re.fullmatch(rf"{HOST}/nomads-[a-z]+@sha256:[0-9a-f]{{64}}", image)
    asked, before = list(account.asked), (account.folder / ".env").read_bytes()
    capsys.readouterr()

    assert account.deploy() == 0

    said = capsys.readouterr().out
    assert "The stack nomads is as it should be." in said
    assert ".env: nothing changed." in said
    assert account.asked == asked, "images that are there are not built again"
    assert (account.folder / ".env").read_bytes() == before
    assert slack.bot_token not in said


def test_without_slack_s_tokens_the_bot_waits_and_the_settings_are_named(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    account.has("docker")

    account.deploy(bot="fargate")

    assert "set SLACK_BOT_TOKEN and SLACK_APP_TOKEN in .env, and deploy again." in capsys.readouterr().out
    assert account.parameters()["BotCount"] == "0"


def test_a_later_run_keeps_what_was_chosen_and_changes_what_is_named_but_never_the_name(
    account: Account, slack: SlackStandIn
) -> None:
    account.has("docker")
    account.deploy(bot="elsewhere", MaxVcpus="256", Name="lab")

    with pytest.raises(NomadsError, match="The installation stays lab: under another Name its secrets"):
        account.deploy(Name="nomads")
    account.deploy(LogDays="30")

    parameters = account.parameters()
    assert (parameters["Bot"], parameters["MaxVcpus"], parameters["LogDays"]) == ("elsewhere", "256", "30")
    assert parameters["Name"] == account.env["NOMADS_AWS_PREFIX"] == "lab", "not the stack's, nomads"
    assert account.env["NOMADS_AWS_LOG_DAYS"] == "30"


def test_a_bot_that_moves_into_the_account_gets_its_image_after_its_repository(
    account: Account, slack: SlackStandIn
) -> None:
    account.has("docker")
    account.deploy(bot="elsewhere")
    pushed(*PROGRAMS)

    account.deploy(bot="fargate")

    assert [line for line in account.asked if line.startswith("push ")][-1].startswith(f"push {HOST}/nomads-bot:")
    assert account.parameters()["BotCount"] == "1"


def test_images_that_cannot_be_had_leave_the_stack_as_it_is(
    account: Account, slack: SlackStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    account.has("docker")
    account.deploy(bot="elsewhere")
    (account.tools / "docker").unlink()
    capsys.readouterr()

    assert account.deploy(LogDays="30") == 1

    said = capsys.readouterr().out
    assert "There is neither Docker nor buildah here" in said
    assert "The stack stays as it is until its images are there." in said
    assert account.parameters()["LogDays"] == "90"
    assert said.count("docker push ") == 2, "each is told once"
    assert len(client("cloudformation").list_change_sets(StackName="nomads")["Summaries"]) == 1, "the one that made it"


def test_a_bot_that_comes_back_waits_for_its_image_and_its_tokens_again(
    account: Account, slack: SlackStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.has("docker")
    account.deploy(bot="fargate", BotCount="1")
    before = len(account.asked)
    account.deploy(bot="elsewhere")
    assert [line for line in account.asked[before:] if "nomads-bot" in line] == [], "a bot that leaves needs no image"
    counts: list[str | None] = []
    propose = Stacks.propose

    def noted(stacks: Stacks, body: str, given: Mapping[str, str], **more: Any) -> Any:
        counts.append(given.get("BotCount"))
        return propose(stacks, body, given, **more)

    monkeypatch.setattr(Stacks, "propose", noted)

    account.deploy(bot="fargate")

    assert counts == ["0", "1"]


def subnets() -> tuple[str, str]:
    """A network that is there, and its subnets, as the parameters name them."""
    ec2 = client("ec2")
    [vpc] = [one["VpcId"] for one in ec2.describe_vpcs()["Vpcs"] if one["IsDefault"]]
    found = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    return vpc, ",".join(one["SubnetId"] for one in found[:2])


def test_an_instance_keeps_the_disk_that_it_began_with(account: Account, slack: SlackStandIn) -> None:
    account.deploy(bot="instance", Architecture="x86_64", InstanceImage=an_image())
    vpc, named = subnets()

    refused = partial(pytest.raises, NomadsError, match=r"an empty disk. Make a second installation \(--name\)")
    with refused():
        account.deploy(Architecture="arm64")
    with refused():
        account.deploy(InstanceImage="ami-0123456789abcdef0")
    with refused():
        account.deploy(Network="yours", VpcId=vpc, SubnetIds=named)


def test_an_instance_in_your_network_keeps_its_subnet_and_others_may_change(
    account: Account, slack: SlackStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    vpc, named = subnets()
    first, second = named.split(",")
    account.deploy(bot="instance", InstanceImage=an_image(), Network="yours", VpcId=vpc, SubnetIds=named)

    with pytest.raises(NomadsError, match="keeps its Architecture, InstanceImage, network and first subnet"):
        account.deploy(SubnetIds=f"{second},{first}")
    account.deploy(answer=False, SubnetIds=first)

    assert account.questions[-1] == "Change the stack nomads in eu-west-2?"


def test_in_a_network_of_yours_none_is_made_and_machines_of_both_kinds_are_in_its_subnets(
    account: Account, slack: SlackStandIn
) -> None:
    account.has("docker")
    vpc, named = subnets()
    before = [one["VpcId"] for one in client("ec2").describe_vpcs()["Vpcs"]]

    account.deploy(bot="elsewhere", Network="yours", VpcId=vpc, SubnetIds=named)

    assert [one["VpcId"] for one in client("ec2").describe_vpcs()["Vpcs"]] == before
    environments = client("batch").describe_compute_environments()["computeEnvironments"]
    machines = {one["computeEnvironmentName"]: one["computeResources"] for one in environments}
    assert {name: one["subnets"] for name, one in machines.items()} == dict.fromkeys(
        ("nomads-spot", "nomads-on-demand"), named.split(",")
    )
    [group] = {one["securityGroupIds"][0] for one in machines.values()}
    [found] = client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert found["VpcId"] == vpc


def test_a_database_keeps_its_network_and_a_move_says_what_stays(
    account: Account, slack: SlackStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    account.has("docker")
    account.deploy(bot="fargate")
    vpc, named = subnets()
    with pytest.raises(NomadsError, match="The bot's database keeps its network"):
        account.deploy(Network="yours", VpcId=vpc, SubnetIds=named)
    account.deploy(answer=False, bot="elsewhere", Network="yours", VpcId=vpc, SubnetIds=named)

    assert "What stays of the one that it has: a last snapshot of the database.\n" in capsys.readouterr().out


@pytest.mark.parametrize("replaced", ["True", "Conditional"])
def test_a_change_is_refused_where_aws_says_that_it_replaces_what_holds_data(
    account: Account,
    slack: SlackStandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    replaced: str,
) -> None:
    """moto does not say what would be replaced; AWS does."""
    account.has("docker")
    account.deploy(bot="elsewhere")
    propose = Stacks.propose

    def replacing(*arguments: Any, **more: Any) -> Proposal | None:
        found = propose(*arguments, **more)
        change = Change("Modify", "BotInstance", "AWS::EC2::Instance", replaced)
        return found and dataclasses.replace(found, changes=[*found.changes, change])

    monkeypatch.setattr(Stacks, "propose", replacing)

    if replaced == "True":
        with pytest.raises(NomadsError, match="AWS would replace BotInstance, and what is in there would stay behind"):
            account.deploy(LogDays="30")
    else:
        account.deploy(answer=False, LogDays="30")
        assert "  change  BotInstance           AWS::EC2::Instance  (may be replaced)\n" in capsys.readouterr().out
    assert len(client("cloudformation").list_change_sets(StackName="nomads")["Summaries"]) == 1, "the one that made it"


@pytest.mark.parametrize("elsewhere", ["lab3", "eu-west-1"])
def test_a_folder_s_env_of_another_installation_is_not_overwritten(
    account: Account, monkeypatch: pytest.MonkeyPatch, elsewhere: str
) -> None:
    env = account.folder / ".env"
    env.write_text("NOMADS_AWS_REGION=eu-west-2\nNOMADS_AWS_PREFIX=nomads\nNOMADS_AWS_BUCKET=theirs\n")
    before = env.read_bytes()
    name, region = (elsewhere, "eu-west-2") if elsewhere == "lab3" else ("nomads", elsewhere)
    monkeypatch.setenv("NOMADS_AWS_REGION", region)

    said = rf"\.env here is of the installation nomads in eu-west-2, and this is {name} in {region}, .* another folder"
    with pytest.raises(NomadsError, match=said):
        account.deploy(name=name, bot="elsewhere")

    assert env.read_bytes() == before
    assert not client("cloudformation", region).describe_stacks()["Stacks"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("Bot=bogus", "Bot: it has to be one of fargate, instance, elsewhere, not 'bogus'"),
        ("LogDays=31", "LogDays: it has to be one of 1, 3, 5, 7, 14, 30, 60,"),
        ("Architecture=ppc", "Architecture: it has to be one of x86_64, arm64"),
        ("MaxVcpus=abc", "MaxVcpus: it has to be a number from 1 to 1,000,000, not 'abc'"),
        ("StuckSeconds=60", "StuckSeconds: it has to be a number from 600 to 86,400"),
        ("MailFrom=nobody", "MailFrom: it has to be an address alone, such as nomads@example.org"),
        ("Admins=U1", "Admins: it has to be a JSON list of Slack's user ids"),
        ("Name=lab-bot", "Name: it has to be 2 to 20 small letters.* must not end in -bot, not 'lab-bot'"),
        ("Name=Lab 2!", "Name: it has to be 2 to 20 small letters"),
        ("BudgetDollars=100", "BudgetDollars=100 tells nobody: set AlarmMail too"),
        ("BudgetDollars=0.0", "BudgetDollars: it has to be a number from 0, not '0.0'"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_made(account: Account, given: str, said: str) -> None:
    name, _, value = given.partition("=")

    with pytest.raises(NomadsError, match=said):
        account.deploy(parameters={name: value})

    assert not client("cloudformation").describe_stacks()["Stacks"]


def test_a_stack_s_name_is_the_installation_s_and_checked_as_such(account: Account) -> None:
    with pytest.raises(NomadsError, match="must not end in -bot, not 'nomads-bot'"):
        account.deploy(name="nomads-bot")


@pytest.mark.usefixtures("built")
def test_another_architecture_has_the_bot_s_image_built_for_it_whatever_else_changed(
    account: Account, slack: SlackStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.has("docker")
    account.deploy(bot="fargate", Architecture="x86_64")
    manifest = json.dumps({"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []})
    for name in (*PROGRAMS, "bot"):
        tag = f"{content_tag(ROOT)}-x86_64" if name == "bot" else content_tag(ROOT)
        client("ecr").put_image(repositoryName=f"nomads-{name}", imageManifest=manifest, imageTag=tag)
    (account.folder / "asked").unlink()

    account.deploy(Architecture="arm64")

    builds = [line for line in account.asked if line.startswith("build ")]
    wanted = f"{HOST}/nomads-bot:{content_tag(ROOT)}-arm64"
    assert builds
    assert [line for line in builds if f"--tag {wanted} --platform linux/arm64" not in line] == []
    assert f"push {wanted}" in account.asked
    assert account.image_of_the_bot() == wanted
    (account.folder / "asked").unlink()
    monkeypatch.setattr("bot.terminal.images.content_tag", lambda _: "another")

    account.deploy(Architecture="x86_64")

    pushes = [line for line in account.asked if line.startswith("push ")]
    tags = (*(f"{name}:another" for name in PROGRAMS), "bot:another-x86_64")
    assert set(pushes) == {f"push {HOST}/nomads-{tag}" for tag in tags}
    assert account.image_of_the_bot() == f"{HOST}/nomads-bot:another-x86_64"
    assert account.parameters()["ImageTag"] == "another"


def an_image() -> str:
    """A machine image that the account has."""
    return str(client("ec2").describe_images(Owners=["amazon"])["Images"][0]["ImageId"])


@pytest.mark.parametrize("end", [KeyboardInterrupt, NomadsError])
def test_a_question_without_an_answer_leaves_nothing_behind(account: Account, end: type[BaseException]) -> None:
    with pytest.raises(end):
        account.deploy(bot="elsewhere", answer=end)

    assert not client("cloudformation").describe_stacks()["Stacks"]


def test_the_end_of_the_input_is_no_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ends)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))

    assert not _asked("Make it?")


def test_a_parameter_that_the_template_has_not_is_refused_before_anything_is_made(account: Account) -> None:
    with pytest.raises(NomadsError, match="The template has no MaxCpus; it has Admins, AlarmMail"):
        account.deploy(MaxCpus="3")

    assert not client("cloudformation").describe_stacks()["Stacks"]


@pytest.mark.usefixtures("built")
def test_what_a_tool_cannot_do_is_told_with_the_command(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.has("docker")
    (account.tools / "docker").write_text('#!/bin/sh\n[ "$1" = info ]\n')

    assert account.deploy(bot="elsewhere") == 1

    assert re.search(r"-m deploy.images nomads-unsupervised .* failed \(exit 1\)", capsys.readouterr().err)


def test_a_token_that_changed_is_stored_and_how_the_bot_takes_it_is_told(
    account: Account, slack: SlackStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    account.has("docker")
    account.deploy(bot="fargate")
    env = account.folder / ".env"
    env.write_text(env.read_text().replace(slack.bot_token, "another-token"))
    capsys.readouterr()

    account.deploy()

    stored = client("secretsmanager").get_secret_value(SecretId="nomads-bot/slack-bot-token")["SecretString"]
    assert stored == "another-token"
    said = capsys.readouterr().out
    assert "aws ecs update-service --cluster nomads-bot --service nomads-bot --force-new-deployment" in said
    assert "another-token" not in said


def test_who_stops_following_is_told_that_aws_goes_on_and_how_to_follow_again(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    account.has("docker")
    monkeypatch.setattr(Stacks, "_events", stop)  # what following begins with, once AWS is at work
    monkeypatch.setattr(Stacks, "_told", lambda *_: frozenset())

    with pytest.raises(KeyboardInterrupt):
        account.deploy(bot="elsewhere")

    assert capsys.readouterr().err == (
        "\nAWS goes on with the stack nomads by itself. Run the same command again to follow it, and to do what comes "
        "after.\n"
    )


def test_destroy_says_what_stays_asks_and_leaves_the_results(
    account: Account, slack: SlackStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    account.has("docker")
    account.deploy(bot="fargate")
    bucket = account.env["NOMADS_AWS_BUCKET"]
    client("s3").put_object(Bucket=bucket, Key="a/results.json", Body=b"{}")
    capsys.readouterr()

    assert account.deploy(destroy=True, answer=False) == 1
    assert client("cloudformation").describe_stacks(StackName="nomads")["Stacks"]
    assert account.deploy(destroy=True) == 0

    said = capsys.readouterr().out
    assert f"  the results, in the bucket {bucket}\n  a last snapshot of the database\n" in said
    assert said.endswith("The stack nomads is gone.\n")
    assert client("s3").get_object(Bucket=bucket, Key="a/results.json")["Body"].read() == b"{}"
    assert account.deploy(destroy=True) == 0
    assert capsys.readouterr().out == "There is no stack nomads in eu-west-2.\n"


def left(prefix: str) -> list[str]:
    """What there is under an installation's prefix: `NAME/`, its secrets; or `NAME_`, its job definitions."""
    if prefix.endswith("/"):
        names = [one["Name"] for one in client("secretsmanager").list_secrets()["SecretList"]]
    else:
        found = client("batch").describe_job_definitions(status="ACTIVE")["jobDefinitions"]
        names = [one["jobDefinitionName"] for one in found]
    return [name for name in names if name.startswith(prefix)]


def with_a_bot_that_was_used(prefix: str) -> None:
    """Let an installation's bot have stored the tokens of two people, and have run a job of each."""
    config = read(ToRun).model_copy(update={"prefix": prefix, "execution_role": "arn:aws:iam::123456789012:role/x"})
    clients = Clients(config)
    for owner in ("U0ONE", "U0TWO"):
        AwsSecrets(config=config, clients=clients, key=b"a key for tests only").put(owner, SecretStr(f"token-{owner}"))
        request = definition(config, region="eu-west-2", pipeline="quick", image="quick:1", owner=owner, token="arn:x")
        BatchCompute(config=config, clients=clients).ensure(request)


def test_destroy_erases_the_tokens_and_job_definitions_of_its_own_installation_and_of_no_other(
    account: Account, slack: SlackStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    account.has("docker")
    account.deploy(bot="elsewhere")
    for prefix in ("nomads", "nomads-lab2", "a-nomads"):
        with_a_bot_that_was_used(prefix)
    client("batch").register_job_definition(  # by somebody else, under a name that begins so, too
        jobDefinitionName="nomads_theirs", type="container", containerProperties={"image": "x", "vcpus": 1, "memory": 9}
    )
    capsys.readouterr()

    assert account.deploy(destroy=True, answer=False) == 1
    said = capsys.readouterr().out
    assert (
        "  2 BOSS tokens of people and 2 job definitions, nomads/… in Secrets Manager and nomads_… in AWS Batch\n"
        in said
    )
    assert said.index("2 BOSS tokens") > said.index("What goes for good:") > said.index("What stays")
    assert (len(left("nomads/")), len(left("nomads_"))) == (2, 3), "the question was answered with no"

    assert account.deploy(destroy=True) == 0

    assert left("nomads/") == []
    assert left("nomads_") == ["nomads_theirs"]
    for other in ("nomads-lab2", "a-nomads"):
        assert (len(left(f"{other}/")), len(left(f"{other}_"))) == (2, 2), other


def test_a_token_that_destroy_erases_cannot_be_had_back_and_one_that_came_late_goes_too(
    account: Account, slack: SlackStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.has("docker")
    account.deploy(bot="elsewhere")
    with_a_bot_that_was_used("nomads")
    [first, _] = left("nomads/")
    destroy = Stacks.destroy

    def while_a_bot_runs(*arguments: Any, **more: Any) -> None:
        client("secretsmanager").create_secret(Name="nomads/late", SecretString="late")
        destroy(*arguments, **more)

    monkeypatch.setattr(Stacks, "destroy", while_a_bot_runs)

    assert account.deploy(destroy=True) == 0

    listed = client("secretsmanager").list_secrets(IncludePlannedDeletion=True)["SecretList"]
    assert [one["Name"] for one in listed if one["Name"].startswith("nomads/")] == []
    with pytest.raises(ClientError, match="can't find the specified secret"):
        client("secretsmanager").restore_secret(SecretId=first)


def test_tokens_of_a_stack_that_goes_already_are_erased_when_that_is_agreed_to(
    account: Account, slack: SlackStandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    account.has("docker")
    account.deploy(bot="elsewhere")
    with_a_bot_that_was_used("nomads")
    look = Stacks.look

    def going(stacks: Stacks, name: str = "") -> Standing | None:
        found = look(stacks, name)
        return found and dataclasses.replace(found, status="DELETE_IN_PROGRESS" if not name else "DELETE_COMPLETE")

    monkeypatch.setattr(Stacks, "look", going)

    assert account.deploy(destroy=True, answer=False) == 1
    assert len(left("nomads/")) == 2
    assert account.deploy(destroy=True) == 0

    assert account.questions[-1] == (
        "AWS takes the stack nomads in eu-west-2 away already. Erase 2 BOSS tokens of people and 2 job definitions too?"
    )
    assert left("nomads/") == []
    asked = len(account.questions)
    assert account.deploy(destroy=True) == 0
    assert len(account.questions) == asked, "there is nothing to ask about"


def test_a_stack_that_is_none_of_nomads_has_nothing_that_a_bot_made(account: Account) -> None:
    client("secretsmanager").create_secret(Name="nomads/theirs", SecretString="theirs")
    empty = json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}})
    client("cloudformation").create_stack(StackName="nomads", TemplateBody=empty)

    assert account.deploy(destroy=True) == 0

    assert left("nomads/") == ["nomads/theirs"]


def test_destroy_names_what_has_a_policy_of_the_stack_asks_and_detaches(
    account: Account, slack: SlackStandIn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """IAM deletes no policy that is attached; moto does."""
    account.has("docker")
    account.deploy(bot="fargate")
    iam = client("iam")
    policies = [f"arn:aws:iam::123456789012:policy/nomads-{name}" for name in ("bot", "doctor")]
    iam.create_user(UserName="engineer")
    iam.create_group(GroupName="lab")
    make_role("server")
    iam.attach_role_policy(RoleName="server", PolicyArn=policies[0])
    own = {"RoleName": "nomads-bot", "PolicyArn": policies[0]}
    iam.attach_role_policy(**own)  # as the template says; moto neither does that nor undoes it
    iam.attach_user_policy(UserName="engineer", PolicyArn=policies[1])
    iam.attach_group_policy(GroupName="lab", PolicyArn=policies[1])
    sent: list[tuple[str, dict[str, str]]] = []

    def note(params: dict[str, str], model: Any, **_: Any) -> None:
        if model.name.startswith(("Detach", "DeleteStack")):
            sent.append((model.name, params))

    made = Stacks(read(AwsConfig), name="nomads", clients=(clients := Clients(read(AwsConfig))))
    clients.session.events.register("before-parameter-build.*.*", note)
    capsys.readouterr()

    assert account.deploy(destroy=True, answer=False, stacks=made) == 1
    assert (sent, len(iam.list_attached_user_policies(UserName="engineer")["AttachedPolicies"])) == ([], 1)
    assert "role nomads-bot" not in capsys.readouterr().out, "the stack's own goes with it"
    iam.detach_role_policy(**own)
    assert account.deploy(destroy=True, stacks=made) == 0

    said = capsys.readouterr().out
    assert f"  {policies[0]}  from the role server\n" in said
    assert f"  {policies[1]}  from the user engineer\n  {policies[1]}  from the group lab\n" in said
    assert sorted(sent[:-1], key=str) == [
        ("DetachGroupPolicy", {"GroupName": "lab", "PolicyArn": policies[1]}),
        ("DetachRolePolicy", {"RoleName": "server", "PolicyArn": policies[0]}),
        ("DetachUserPolicy", {"UserName": "engineer", "PolicyArn": policies[1]}),
    ]
    assert sent[-1][0] == "DeleteStack"


def test_the_scripts_of_the_instance_are_ones_that_a_shell_can_read(tmp_path: Path) -> None:
    data = properties("BotInstance")["UserData"]["Fn::Base64"]["Fn::Sub"][0]
    script = data[data.index("#!/bin/bash") : data.index("--//--")]
    inner = re.findall(r"<<'END'\n(#!/bin/bash\n.*?)\nEND\n", script, re.DOTALL)
    assert len(inner) == 1
    for text in (script, *inner):
        checked = subprocess.run(["/bin/bash", "-n"], input=text.encode(), capture_output=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, b"")
