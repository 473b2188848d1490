"""What `doctor` tries in AWS: each part once. What these credentials may not look at is said, and is no failure."""

from __future__ import annotations

import json
import re
import secrets as entropy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parseaddr
from typing import Any, Protocol

from pydantic import SecretStr

from bot.aws.clients import Clients, Denied, translated
from bot.aws.config import AwsConfig
from bot.aws.guards import Guard, Guards
from bot.aws.secrets import AwsSecrets
from bot.domain.errors import NomadsError, NotFound

OWNER = "doctor"
"""Whose the secret is that is stored, read and deleted for a test."""
UNREAD = 1000
"""Events that may wait: a bot that runs reads them within seconds."""
CONTAINERS = "ecs-tasks.amazonaws.com"
MACHINES = "ec2.amazonaws.com"
_ECR = re.compile(
    r"(?P<account>[0-9]{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/"
    r"(?P<name>[^:@]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]+))?"
)


class Program(Protocol):
    """The part of a pipeline that is looked at."""

    @property
    def name(self) -> str:
        """The pipeline's name."""

    @property
    def image(self) -> str:
        """The pipeline's container image; empty: it cannot run on AWS Batch."""


class Doctor:
    """The checks of one account. Each returns what could not be looked at, or raises NomadsError with what is wrong."""

    def __init__(
        self, config: AwsConfig, clients: Clients, *, secrets: AwsSecrets, pipelines: Iterable[Program]
    ) -> None:
        self._config = config
        self._clients = clients
        self._secrets = secrets
        self._pipelines = list(pipelines)
        self._guards = Guards(config, clients)

    @property
    def checks(self) -> Mapping[str, Callable[[], str]]:
        """The checks by name."""
        return {
            "roles": self.roles,
            "images": self.images,
            "secrets": self.secrets,
            "logs": self.logs,
            "bucket": self.bucket,
            "queue": self.queue,
            "events": self.events,
        }

    def roles(self) -> str:
        """The roles exist, and trust whom they serve."""
        findings, config = Findings(), self._config
        for setting, arn in (
            ("NOMADS_AWS_JOB_ROLE", config.job_role),
            ("NOMADS_AWS_EXECUTION_ROLE", config.execution_role),
        ):
            name = arn.rpartition("/")[2]
            with findings.look("iam:GetRole", absent=f"{setting}: there is no role {name}. Run nomads deploy."):
                role = self._clients.iam.get_role(RoleName=name)["Role"]
                findings.trusted(role, CONTAINERS)
        if config.instance_role:  # needed by machines, not by the bot
            name = config.instance_role.rpartition("/")[2]
            missing = f"NOMADS_AWS_INSTANCE_ROLE: there is no instance profile {name}. Run nomads deploy."
            with findings.look("iam:GetInstanceProfile", absent=missing):
                profile = self._clients.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
                if not profile["Roles"]:
                    findings.wrong.append(f"The instance profile {name} has no role; give it one.")
                for role in profile["Roles"]:
                    findings.trusted(role, MACHINES)
        return findings.verdict()

    def images(self) -> str:
        """The pipelines' images are in their registries, as far as those are ECR."""
        findings = Findings()
        for pipeline in self._pipelines:
            found = _ECR.fullmatch(pipeline.image)
            if found is None:
                elsewhere = f"{pipeline.image}, which is not in ECR" if pipeline.image else "it has no image"
                findings.unseen.append(f"{pipeline.name}: {elsewhere}")
                continue
            absent = f"{pipeline.name}: {pipeline.image} is not in ECR. Push it, or name another one in NOMADS_IMAGES."
            image = {"imageDigest": found["digest"]} if found["digest"] else {"imageTag": found["tag"] or "latest"}
            with findings.look("ecr:DescribeImages", absent=absent):
                client = self._clients.ecr(found["region"])
                with translated(f"ECR did not show {pipeline.image}"):
                    try:
                        client.describe_images(
                            registryId=found["account"], repositoryName=found["name"], imageIds=[image]
                        )
                    except (client.exceptions.ImageNotFoundException, client.exceptions.RepositoryNotFoundException):
                        raise NotFound(absent) from None
        return findings.verdict()

    def secrets(self) -> str:
        """A secret can be stored, read and deleted, as a token is."""
        value = SecretStr(entropy.token_urlsafe(24))
        try:
            reference = self._secrets.put(OWNER, value)
            try:
                read = self._secrets.get(reference)
            finally:
                self._secrets.forget(reference)
        except Denied as error:
            raise NomadsError(f"{error}. Give the bot the rights “KeepTokens” of deploy/nomads.yaml.") from None
        if read.get_secret_value() != value.get_secret_value():
            raise NomadsError("Secrets Manager gave back another value than was stored; look at the account's secrets.")
        return ""

    def logs(self) -> str:
        """The log group is there, may be read, and retains its lines for as long as the settings say."""
        findings, name = Findings(), self._config.log_group
        with findings.look("logs:DescribeLogGroups"):
            group = self._guards.log_group()
            if group is None:
                raise NomadsError(f"There is no log group {name}. Run nomads deploy.")
            findings.add(self._guards.retention(group))
        client = self._clients.logs
        with translated(f"CloudWatch does not let the bot read {name}"):
            try:
                client.get_log_events(logGroupName=name, logStreamName="nomads-doctor", limit=1)
            except client.exceptions.ResourceNotFoundException:
                pass  # there is no such stream, and whoever may not read is told so first
            except client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] != "AccessDeniedException":
                    raise
                findings.wrong.append(f"These credentials may not read {name}: give the bot logs:GetLogEvents.")
        return findings.verdict()

    def bucket(self) -> str:
        """Each guard of the bucket is as it should be."""
        findings = Findings()
        for action, look in self._guards.bucket.items():
            with findings.look(action):
                findings.add(look())
        return findings.verdict()

    def queue(self) -> str:
        """Queue and machines are enabled and valid, and the queue gives up jobs that cannot start."""
        findings, guards = Findings(), self._guards
        with findings.look("batch:DescribeJobQueues"):
            if found := findings.valid(f"queue {self._config.queue}", guards.queue()):
                findings.add(guards.queue_state(found))
                findings.add(guards.queue_limits(found))
        with findings.look("batch:DescribeComputeEnvironments"):
            if found := findings.valid(f"compute environment {self._config.compute_environment}", guards.machines()):
                findings.add(guards.machines_state(found))
        return findings.verdict()

    def events(self) -> str:
        """The queue of events is there, and somebody reads it."""
        findings, queue = Findings(), self._config.events_queue
        if not queue:
            findings.unseen.append("NOMADS_AWS_EVENTS_QUEUE is not set: AWS Batch is asked every ten seconds")
            return findings.verdict()
        absent = "NOMADS_AWS_EVENTS_QUEUE: there is no such queue. Run nomads deploy."
        with findings.look("sqs:GetQueueAttributes", absent=absent):
            asked: Any = {"QueueUrl": queue, "AttributeNames": ["ApproximateNumberOfMessages"]}
            waiting = int(self._clients.sqs.get_queue_attributes(**asked)["Attributes"]["ApproximateNumberOfMessages"])
            if waiting > UNREAD:
                findings.notes.append(f"{waiting:,} events wait in {queue.rpartition('/')[2]}: is a bot running?")
        return findings.verdict()


def check_ses(config: AwsConfig, sender: str, *, clients: Clients | None = None) -> str:
    """Whether SES sends mail of `sender` to everybody; returns and raises as a check of Doctor."""
    clients, findings, address = clients or Clients(config), Findings(), parseaddr(sender)[1]
    with findings.look("ses:GetEmailIdentity"):
        identity = _identity(clients, address) or _identity(clients, address.rpartition("@")[2])
        if identity is None:
            findings.wrong.append(f"SES does not know {address}. Verify the address or its domain in {clients.region}.")
        elif not identity.get("VerifiedForSendingStatus"):
            findings.wrong.append(f"SES has not verified {address} yet. Answer SES's mail, or publish its DNS records.")
    with findings.look("ses:GetAccount"), translated("SES did not show the account"):
        account = clients.ses.get_account()
        if not account.get("SendingEnabled"):
            findings.wrong.append("SES has paused this account's mail. Ask AWS support, or resume it in SES's console.")
        if not account.get("ProductionAccessEnabled"):
            findings.wrong.append(
                "The account is in SES's sandbox: only verified addresses get mail. Ask AWS for production access."
            )
    return findings.verdict()


def _identity(clients: Clients, name: str) -> Mapping[str, Any] | None:
    with translated("SES did not show its identities"):
        try:
            return clients.ses.get_email_identity(EmailIdentity=name)
        except clients.ses.exceptions.NotFoundException:
            return None


class Findings:
    """What one check found."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        """Sentences that say what is wrong and what to do."""
        self.unseen: list[str] = []
        """What was not looked at."""
        self.notes: list[str] = []
        """What an admin may want to know although it is not wrong."""
        self._looks = 0

    @contextmanager
    def look(self, action: str, *, absent: str = "") -> Iterator[None]:
        """Note an action that is not allowed, what is not there, and any other NomadsError; the check goes on."""
        try:
            with translated(f"{action} was not answered"):
                yield
            self._looks += 1
        except Denied:
            if (denied := f"may not look: {action}") not in self.unseen:
                self.unseen.append(denied)
        except NotFound as error:
            self._looks += 1
            self.wrong.append(absent or str(error))
        except NomadsError as error:
            self.wrong.append(str(error))

    def add(self, guard: Guard) -> None:
        """Take over what a guard says."""
        self.wrong.extend(f"{guard.of}: {text}. {guard.advice}" for text in guard.wrong)
        self.notes.extend(f"{guard.of}: note that {text}." for text in guard.notes)

    def valid(self, what: str, found: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """A resource of AWS Batch has to be there, and VALID. Returns the resource."""
        if found is None:
            self.wrong.append(f"There is no {what}. Run nomads deploy.")
        elif found["status"] != "VALID":
            reason = found.get("statusReason") or "AWS gives no reason"
            self.wrong.append(f"The {what} is {found['status']}: {reason}. Mend it in the AWS Batch console.")
        return found

    def trusted(self, role: Mapping[str, Any], service: str) -> None:
        """A role has to trust the service that takes it."""
        document = role.get("AssumeRolePolicyDocument") or {}
        document = json.loads(document) if isinstance(document, str) else document
        statements = document.get("Statement") or []
        if not any(_lets(s, service) for s in (statements if isinstance(statements, list) else [statements])):
            self.wrong.append(
                f"The role {role['RoleName']} does not trust {service}. Set its trust as deploy/nomads.yaml has it."
            )

    def verdict(self) -> str:
        """What was not looked at, and notes. Raises NomadsError where something is wrong."""
        unseen = "; ".join(self.unseen)
        if self.wrong:
            raise NomadsError(" ".join([*self.wrong, *([f"Not checked: {unseen}."] if unseen else []), *self.notes]))
        said = "ok" if self.notes else ""
        if unseen:
            said = f"ok but for what was not checked ({unseen})" if self._looks else f"not checked ({unseen})"
        return ". ".join(filter(None, [said, " ".join(self.notes)]))


def _lets(statement: Mapping[str, Any], service: str) -> bool:
    principal = statement.get("Principal")
    named = principal.get("Service", []) if isinstance(principal, dict) else []
    services, actions = ([one] if isinstance(one, str) else one for one in (named, statement.get("Action") or []))
    return statement.get("Effect") == "Allow" and service in services and "sts:AssumeRole" in actions
