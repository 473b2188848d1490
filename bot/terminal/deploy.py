"""`deploy`: an AWS account for NOMADS by one command, from deploy/nomads.yaml; and its end, with `--destroy`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bot.aws.config import AwsConfig
from bot.aws.costs import PRICES, idle, total
from bot.aws.stack import Besides, Proposal, StackFailed, Stacks, Standing
from bot.aws.template import check, parameters
from bot.domain.errors import NomadsError
from bot.settings import ENV_FILE, ROOT, Settings, read, read_all
from bot.terminal import envfile, images
from contract.program import TOKEN_VARIABLE

TEMPLATE = ROOT / "deploy" / "nomads.yaml"
ARCHITECTURES = {"aarch64": "arm64", "arm64": "arm64"}
"""What the machine calls itself, to the template's word; any other machine is x86_64."""
PLATFORMS = {"x86_64": "linux/amd64", "arm64": "linux/arm64"}
PROGRAMS = "linux/amd64"
"""Machines of jobs are x86_64."""
SMALL = (
    *("submit", "--pipeline", "nomads-unsupervised", "--collection", "collman", "--experiment", "collman15v2"),
    *("--x", "0,256", "--y", "0,256", "--z", "0,16", "--wait"),
)
"""A small job on public data."""

HOLDING = ("AWS::EC2::Instance", "AWS::RDS::DBInstance", "AWS::SecretsManager::Secret")
"""Kinds of resources of the template that hold what cannot be made again."""
REPLACED = {"True": "  (is replaced)", "Conditional": "  (may be replaced)"}
LEFT = {"fargate": "a last snapshot of the database", "instance": "the bot's disk, a volume of EC2"}
"""What stays of a bot that goes, by where it runs."""
ANOTHER = (
    "Make a second installation (--name) as you wish it, in a folder with a .env of its own, and take this one away "
    "(--destroy) when nobody needs it."
)

Ask = Callable[[str], bool]
Run = Callable[[Sequence[str]], int]


def deploy(arguments: argparse.Namespace, *, run: Run, ask: Ask | None = None, stacks: Stacks | None = None) -> int:
    """Make the stack, or bring it to the template; push images; write `.env`; and test each part. 0: all is right.

    `run` runs another command of `nomads`, and `ask` puts a question to whoever is at the terminal.

    1: AWS could not do it, something is not right, or the answer was no. Raises NomadsError for what is wrong before
    anything was done. May be run again at any time: what is done is not done twice.
    """
    config = read(AwsConfig)
    made = stacks or Stacks(config, name=arguments.name)
    agree = ask or (_yes if arguments.yes else _asked)
    try:
        if arguments.destroy:
            return _destroy(made, agree)
        return _Deployment(made, arguments, agree, run).run()
    except (StackFailed, images.ToolFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if made.at_work:
            again = "Run the same command again to follow it, and to do what comes after."
            print(f"\nAWS goes on with the stack {made.name} by itself. {again}", file=sys.stderr)
        raise


class _Deployment:
    """One run of `deploy`."""

    def __init__(self, stacks: Stacks, arguments: argparse.Namespace, agree: Ask, run: Run) -> None:
        self._stacks = stacks
        self._run = run
        self._agree = agree
        self._arguments = arguments
        try:
            self._body = TEMPLATE.read_text(encoding="utf-8")
        except OSError:
            raise NomadsError(f"There is no {TEMPLATE}: run deploy in a checkout of NOMADS.") from None
        self._known = parameters(self._body)
        self._tag = images.content_tag(ROOT)

    def run(self) -> int:
        """Everything, in its order. Returns the exit code."""
        chosen = self._chosen()
        check(self._known, {"Name": self._stacks.name, **chosen})
        settings = read(Settings)
        standing = self._settled()
        before = standing if standing and standing.exists else None
        given = self._parameters(before, chosen)
        values = self._values(before) | given
        self._allowed(self._values(before) if before else None, values)
        proposal = self._proposed(standing, given, values)
        if proposal and not self._agreed(proposal, before):
            return 1
        # Images come first where there are repositories, since the change may start containers of them.
        if proposal and before and not self._published(before, values, proposal):
            print("The stack stays as it is until its images are there.")
            standing, ready = before, False
        else:
            standing = self._stacks.execute(proposal, say=print) if proposal else before
            if standing is None:
                raise NomadsError(f"AWS proposes nothing for the stack {self._stacks.name}, which is not there.")
            ready = self._publish(standing, values)
        standing = self._finished(standing, values, settings) if ready else standing
        self._write(standing)
        return 0 if self._sound() and ready else 1

    def _chosen(self) -> dict[str, str]:
        """The parameters that the command names."""
        chosen = dict(self._arguments.set)
        return chosen | ({"Bot": self._arguments.bot} if self._arguments.bot else {})

    def _values(self, standing: Standing | None) -> dict[str, str]:
        """All parameters as they are, and those of the template that the stack does not know by their defaults."""
        return {name: one.default for name, one in self._known.items()} | dict(standing.parameters if standing else {})

    def _allowed(self, before: Mapping[str, str] | None, values: Mapping[str, str]) -> None:
        """Raises NomadsError where these parameters contradict one another, lose data, or are not those of `.env`."""
        if values["BudgetDollars"] != "0" and not values["AlarmMail"]:
            raise NomadsError(
                f"BudgetDollars={values['BudgetDollars']} tells nobody: set AlarmMail too, the address that gets the "
                "budget's mail."
            )
        if before:
            _lossless(before, values)
        name, region = (envfile.value(Path(ENV_FILE), f"NOMADS_AWS_{what}") for what in ("PREFIX", "REGION"))
        if name and (name, region or self._stacks.region) != (values["Name"], self._stacks.region):
            raise NomadsError(
                f"{ENV_FILE} here is of the installation {name}{f' in {region}' if region else ''}, and this is "
                f"{values['Name']} in {self._stacks.region}, which would take its place. Run deploy in another folder "
                f"with a {ENV_FILE} of its own, or move this one away first."
            )

    def _published(self, standing: Standing, values: Mapping[str, str], proposal: Proposal) -> bool:
        """As `_publish`; where images are not there in the end, the proposal is withdrawn."""
        ready = False
        try:
            ready = self._publish(standing, values)
        finally:
            if not ready:
                self._stacks.withdraw(proposal.arn)
        return ready

    def _settled(self) -> Standing | None:
        """The stack, once AWS is done with what it does to it. Raises NomadsError where it takes no change."""
        standing = self._stacks.look()
        if standing and standing.busy:
            print(f"AWS is at work on the stack {self._stacks.name} ({standing.status}); following it.")
            standing = self._stacks.follow(standing.arn, say=print)
            standing = self._stacks.look()
        if standing and standing.way_out:
            raise NomadsError(f"The stack {self._stacks.name} is {standing.status}. {standing.way_out}")
        return standing

    def _parameters(self, standing: Standing | None, chosen: Mapping[str, str]) -> dict[str, str]:
        """The parameters that this run decides; all others stay, or have the template's default."""
        given = dict(chosen)
        before = standing.parameters if standing else {}
        bot = given.get("Bot") or before.get("Bot") or self._known["Bot"].default
        if "Architecture" not in given and not before:
            given["Architecture"] = ARCHITECTURES.get(platform.machine(), "x86_64")
        if bot == "instance" != before.get("Bot") and "InstanceImage" not in given:
            given["InstanceImage"] = self._stacks.machine_image(given.get("Architecture") or before["Architecture"])
        if bot == "fargate" and before.get("Bot", bot) != bot:  # its repository and secrets are made anew
            given.setdefault("BotCount", "0")
        given.setdefault("Name", before.get("Name", self._stacks.name))
        given.setdefault("ImageTag", self._tag)
        return given

    def _proposed(
        self, standing: Standing | None, given: Mapping[str, str], values: Mapping[str, str]
    ) -> Proposal | None:
        """What would change, once it is shown. Raises NomadsError where AWS would replace what holds data."""
        proposal = self._stacks.propose(self._body, given, before=standing)
        if proposal is None:
            print(f"The stack {self._stacks.name} is as it should be.")
            return None
        if lost := [one.name for one in proposal.changes if one.replaced == "True" and one.kind in HOLDING]:
            self._stacks.withdraw(proposal.arn)
            raise NomadsError(f"AWS would replace {', '.join(lost)}, and what is in there would stay behind. {ANOTHER}")
        _show(proposal)
        left = LEFT.get(standing.parameters.get("Bot", "")) if standing and standing.exists else None
        if left and standing and standing.parameters["Bot"] != values["Bot"]:
            print(
                f"The bot begins with an empty database where it moves to. What stays of the one that it has: {left}."
            )
        _show_costs(values["Bot"], values["Architecture"])
        return proposal

    def _agreed(self, proposal: Proposal, standing: Standing | None) -> bool:
        what = "Change" if standing else "Make"
        agreed = False
        try:
            agreed = self._agree(f"{what} the stack {self._stacks.name} in {self._stacks.region}?")
        finally:
            if not agreed:
                self._stacks.withdraw(proposal.arn)
        if not agreed:
            print("Nothing was done.")
        return agreed

    def _publish(self, standing: Standing, values: Mapping[str, str]) -> bool:
        """Push those images for these parameters that are not in the registry. Returns whether all are there."""
        wanted = _wanted(standing, values)
        missing = [one for one in wanted if not self._stacks.digest(one[1])]
        if not missing:
            return True
        if tool := images.tool(ROOT):
            images.publish(tool, missing, checkout=ROOT, password=self._stacks.registry_password, say=print)
            return True
        login = " ".join(images.login("docker", missing[0][1].partition("/")[0]))
        print("There is neither Docker nor buildah here, so the images are yours to build and push where one is:")
        print(f"  aws ecr get-login-password --region {self._stacks.region} | {login}")
        for image, reference, kind in missing:
            print(f"  {' '.join(images.build('.venv/bin/python', image, reference, platform=kind))}")
            print(f"  {' '.join(images.push('docker', reference))}")
        print("Then run deploy again.")
        return False

    def _store(self, standing: Standing, settings: Settings) -> bool:
        """Give the bot's secrets Slack's tokens. Returns whether both are there now."""
        if "SlackBotToken" not in standing.outputs:
            return False
        tokens = {
            "SLACK_BOT_TOKEN": (standing.outputs["SlackBotToken"], settings.slack_bot_token),
            "SLACK_APP_TOKEN": (standing.outputs["SlackAppToken"], settings.slack_app_token),
        }
        if missing := " and ".join(name for name, (_, token) in tokens.items() if token is None):
            print(f"The bot starts once it has Slack's tokens: set {missing} in {ENV_FILE}, and deploy again.")
            return False
        changed = [self._stacks.store(secret, token.get_secret_value()) for secret, token in tokens.values() if token]
        if any(changed) and standing.parameters.get("BotCount") == "1":
            name = standing.parameters["Name"]
            print("The bot uses the new tokens once it is started again:")
            print(f"  aws ecs update-service --cluster {name}-bot --service {name}-bot --force-new-deployment")
        return True

    def _finished(self, standing: Standing, values: Mapping[str, str], settings: Settings) -> Standing:
        """The stack with its images by their digests, and with the bot's service started once it has all it needs."""
        given = {}
        programs = {f"nomads-{image.name}": reference for image, reference, _ in _wanted(standing, values)}
        programs.pop("nomads-bot", None)
        digests = {name: self._stacks.digest(reference) for name, reference in programs.items()}
        if all(digests.values()):
            by_digest = {name: f"{programs[name].rpartition(':')[0]}@{digest}" for name, digest in digests.items()}
            given["Images"] = json.dumps(by_digest)
        paused = "BotCount" in dict(self._arguments.set)
        if self._store(standing, settings) and standing.parameters["Bot"] == "fargate" and not paused:
            given["BotCount"] = "1"
        given = {name: value for name, value in given.items() if standing.parameters.get(name) != value}
        proposal = self._stacks.propose(self._body, given, before=standing) if given else None
        return self._stacks.execute(proposal, say=print) if proposal else standing

    def _write(self, standing: Standing) -> None:
        changed = envfile.merge(Path(ENV_FILE), standing.settings)
        print(f"{ENV_FILE}: {', '.join(changed) or 'nothing'} changed.")
        if standing.parameters.get("Bot") == "elsewhere":
            print("These settings are the bot's, on whichever machine it runs:")
            for name, value in standing.settings.items():
                print(f"  {name}={value}")
            print(
                f"Attach the policy {standing.outputs['BotPolicy']} to what the bot runs as, and start it: nomads run"
            )

    def _sound(self) -> bool:
        """Test each part, and offer a small job."""
        from bot.terminal.admin import doctor

        sound = doctor(read_all(), say=print)
        command = f"nomads {' '.join(SMALL)}"
        if not os.environ.get(TOKEN_VARIABLE) or self._arguments.yes:
            print(f"To try it with a small job on public data: {TOKEN_VARIABLE}=public {command}")
        elif sound and self._agree(f"Run a small job on public data now ({command})?"):
            return self._run(SMALL) == 0
        return sound


def _wanted(standing: Standing, values: Mapping[str, str]) -> list[tuple[images.Image, str, str]]:
    """The images of the stack with these parameters, each with its reference and its platform."""
    tag = values["ImageTag"]
    found = [
        (image, f"{standing.outputs[f'{image.name.capitalize()}Images']}:{tag}", PROGRAMS) for image in images.PROGRAMS
    ]
    repository = standing.outputs.get("BotImages")
    if repository and values["Bot"] != "elsewhere":  # the bot may be about to leave
        architecture = values["Architecture"]
        found.append((images.BOT, f"{repository}:{tag}-{architecture}", PLATFORMS[architecture]))
    return found


def _lossless(before: Mapping[str, str], values: Mapping[str, str]) -> None:
    """Raises NomadsError for other parameters with which the bot would no longer have what it has now.

    A bot that moves begins anew, which is told where it is proposed.
    """
    if values["Name"] != before["Name"]:
        raise NomadsError(
            f"The installation stays {before['Name']}: under another Name its secrets, its database and the key that "
            f"seals tokens would be new and empty. {ANOTHER}"
        )
    if values["Bot"] != before["Bot"]:
        return
    if values["Bot"] == "instance" and _machine(values) != _machine(before):
        raise NomadsError(
            "The bot's instance keeps its Architecture, InstanceImage, network and first subnet: another one would "
            f"begin with an empty disk. {ANOTHER}"
        )
    if values["Bot"] == "fargate" and _network(values) != _network(before):
        raise NomadsError(f"The bot's database keeps its network: another one would begin empty. {ANOTHER}")


def _network(values: Mapping[str, str]) -> str:
    return values["VpcId"] if values["Network"] == "yours" else "own"


def _machine(values: Mapping[str, str]) -> tuple[str, ...]:
    """What makes another instance of the bot's."""
    subnet = values["SubnetIds"].split(",")[0].strip() if values["Network"] == "yours" else ""
    return values["Architecture"], values["InstanceImage"], _network(values), subnet


def _show(proposal: Proposal) -> None:
    """Every resource that the change adds, changes or removes."""
    for action, word in (("Add", "add"), ("Modify", "change"), ("Remove", "remove")):
        for change in sorted((one for one in proposal.changes if one.action == action), key=lambda one: one.name):
            print(f"  {word:6}  {change.name:20}  {change.kind}{REPLACED.get(change.replaced, '')}")
    counts = [sum(one.action == action for one in proposal.changes) for action in ("Add", "Modify", "Remove")]
    print("{} to add, {} to change, {} to remove.".format(*counts))


def _show_costs(bot: str, architecture: str) -> None:
    print(f"While no job runs, Bot={bot} costs by the month ({PRICES}):")
    items = idle(bot, architecture)
    for item in items:
        print(f"  {item.what:28}  {item.arithmetic:42}  {f'${item.dollars}':>8}")
    print(f"  together {total(items)}")


def _destroy(stacks: Stacks, agree: Ask) -> int:
    """Take the stack away, after saying what stays."""
    standing = stacks.look()
    if standing is None:
        print(f"There is no stack {stacks.name} in {stacks.region}.")
        return 0
    if standing.busy and not standing.status.startswith("DELETE"):
        raise NomadsError(f"AWS is at work on the stack {stacks.name} ({standing.status}). Wait until it is done.")
    besides = stacks.besides(standing)
    for line in _stays(standing, besides):
        print(line)
    attached = [] if standing.busy else stacks.attachments(standing)
    if attached:
        print("Detached first, since AWS deletes no policy that something has:")
    for one in attached:
        print(f"  {one.policy}  from the {one.kind} {one.name}")
    question = f"Take the stack {stacks.name} in {stacks.region} away?"
    if standing.busy:
        question = f"AWS takes the stack {stacks.name} in {stacks.region} away already. Erase {besides} too?"
    if (besides or not standing.busy) and not agree(question):
        print("Nothing was done.")
        return 1
    for one in attached:
        stacks.detach(one)
    stacks.erase(besides)
    if standing.busy:
        stacks.follow(standing.arn, say=print)
    else:
        stacks.destroy(standing, say=print)
    stacks.erase(stacks.besides(standing))  # what the bot made until it ended
    print(f"The stack {stacks.name} is gone.")
    return 0


def _stays(standing: Standing, besides: Besides) -> Sequence[str]:
    name = standing.parameters.get("Name", "nomads")
    bucket = standing.outputs.get("NomadsAwsBucket", "")
    database = LEFT.get(standing.parameters.get("Bot", ""))
    return [
        "What stays, and goes on costing what it holds:",
        *([f"  the results, in the bucket {bucket}"] if bucket else []),
        *([f"  {database}"] if database else []),
        f"  {ENV_FILE} here",
        "What goes for good:",
        "  machines, queues, roles, network, images, log lines, and the bot with its key and Slack's tokens",
        f"  {besides}, {name}/… in Secrets Manager and {name}_… in AWS Batch",
    ]


def _yes(_question: str) -> bool:
    return True


def _asked(question: str) -> bool:
    """Whether a person at the terminal says yes; without a terminal nobody does."""
    if not sys.stdin.isatty():
        raise NomadsError(f"{question} Nobody is here to answer: add --yes.")
    try:
        said = input(f"{question} [y/N] ")
    except EOFError:
        return False
    return re.fullmatch(r"\s*y(es)?\s*", said, re.IGNORECASE) is not None
