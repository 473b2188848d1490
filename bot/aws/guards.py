"""What the bot's things in AWS should be, and in what they differ: deploy/nomads.yaml makes them so, `doctor` looks.

A guard is looked at anew whenever its function is called. Each function raises Denied where these credentials may not
look, and any other NomadsError where AWS does not answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.aws.clients import Clients, translated
from bot.aws.clients import wanted as field_of
from bot.aws.config import AwsConfig
from bot.aws.statements import denies_without_tls, is_public, listed, other_accounts

UPLOAD_DAYS = 1
"""Days after which S3 drops the parts of an upload that broke off."""
STUCK = (
    "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY",
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE",
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
)
"""Reasons for which AWS Batch can end a job that blocks its queue (user guide, “Jobs stuck in a RUNNABLE status”)."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """One thing that should be so, as it is."""

    of: str
    """What it guards, such as `bucket nomads-results`."""
    wrong: Sequence[str] = ()
    """How it differs, each with what it should be; empty: it is right."""
    notes: Sequence[str] = ()
    """What an admin may want to know although it is not wrong."""
    advice: str = ""
    """What an admin does about it."""


class Guards:
    """Looks at bucket, log group, machines and queue of one account."""

    def __init__(self, config: AwsConfig, clients: Clients) -> None:
        self._config = config
        self._clients = clients

    @property
    def bucket(self) -> Mapping[str, Callable[[], Guard]]:
        """The bucket's guards, each under the IAM action that looks at it."""
        return {
            "s3:GetBucketPublicAccessBlock": self.public_access,
            "s3:GetEncryptionConfiguration": self.encryption,
            "s3:GetBucketOwnershipControls": self.ownership,
            "s3:GetBucketPolicy": self.policy,
            "s3:GetLifecycleConfiguration": self.uploads,
        }

    # The bucket

    def public_access(self) -> Guard:
        """All four blocks of public access are on."""
        blocks = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        s3, name = self._clients.s3, self._config.bucket
        found = self._bucket(
            lambda: s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
            absent="NoSuchPublicAccessBlockConfiguration",
        )
        return self._guard(
            wrong=[f"{block} is off; it should be on" for block in blocks if not (found or {}).get(block)]
        )

    def encryption(self) -> Guard:
        """New objects are encrypted, by S3's own keys or by a key of the account."""
        s3, name = self._clients.s3, self._config.bucket
        found = self._bucket(
            lambda: s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"],
            absent="ServerSideEncryptionConfigurationNotFoundError",
        )
        kinds = {rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for rule in found or ()}
        sound = kinds & {"AES256", "aws:kms", "aws:kms:dsse"}
        return self._guard(wrong=[] if sound else ["objects are not encrypted; they should be"])

    def ownership(self) -> Guard:
        """Objects belong to the bucket's owner, and ACLs mean nothing."""
        s3, name, wanted = self._clients.s3, self._config.bucket, "BucketOwnerEnforced"
        found = self._bucket(
            lambda: s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]["Rules"],
            absent="OwnershipControlsNotFoundError",
        )
        kinds = [str(rule.get("ObjectOwnership")) for rule in found or ()]
        differs = f"object ownership is {' and '.join(kinds) or 'not set'}; it should be {wanted}"
        return self._guard(wrong=[] if kinds == [wanted] else [differs])

    def policy(self) -> Guard:
        """The policy denies requests without TLS and lets nobody else in."""
        s3, name = self._clients.s3, self._config.bucket
        partition = self._clients.session.get_partition_for_region(self._clients.region)
        arn = f"arn:{partition}:s3:::{name}"
        found = self._bucket(
            lambda: json.loads(s3.get_bucket_policy(Bucket=name)["Policy"]), absent="NoSuchBucketPolicy"
        )
        statements = listed((found or {}).get("Statement"))
        denials = [s for s in statements if denies_without_tls(s)]
        denied = {resource for s in denials for resource in listed(s.get("Resource"))}
        public = [_sid(s) for s in statements if is_public(s)]
        others = [s for s in statements if s not in denials and not is_public(s)]
        foreign = {_sid(s): accounts for s in others if (accounts := other_accounts(s, self._account))}
        notes = [f"the policy's statement {sid} lets in account {', '.join(who)}" for sid, who in foreign.items()]
        if further := [_sid(s) for s in others if _sid(s) not in foreign]:
            notes.append(f"the policy has statements that are not NOMADS's: {', '.join(further)}")
        wrong = [f"the policy's statement {sid} lets anybody in; it should be gone" for sid in public]
        if not denied >= {arn, f"{arn}/*"}:
            wrong.append("the policy lets requests in without TLS; it should deny them")
        return self._guard(wrong=wrong, notes=notes)

    def uploads(self) -> Guard:
        """Parts of uploads that broke off are dropped."""
        s3, name = self._clients.s3, self._config.bucket
        found: list[Any] = (
            self._bucket(
                lambda: s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"],
                absent="NoSuchLifecycleConfiguration",
            )
            or []
        )
        days = [
            rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
            for rule in found
            if rule.get("Status") == "Enabled" and "AbortIncompleteMultipartUpload" in rule and _of_all(rule)
        ]
        kept = f"{min(days)} days" if days else "for ever"
        differs = f"parts of broken uploads are kept {kept}; it should be {UPLOAD_DAYS} day"
        return self._guard(wrong=[] if days and min(days) <= UPLOAD_DAYS else [differs])

    def _bucket(self, look: Callable[[], Any], *, absent: str) -> Any:
        """What `look` finds; None where S3 answers with the code `absent`."""
        with translated(f"The bucket {self._config.bucket} did not show how it is guarded"):
            try:
                return look()
            except self._clients.s3.exceptions.ClientError as error:
                if error.response["Error"]["Code"] != absent:
                    raise
                return None

    @property
    def _account(self) -> str:
        """The id of the bot's own account, as its roles tell it."""
        return self._config.job_role.split(":")[4] if self._config.job_role else ""

    def _guard(self, **values: Any) -> Guard:
        return Guard(of=f"bucket {self._config.bucket}", advice="Set it so in S3's console.", **values)

    # The log group

    def log_group(self) -> Any:
        """The log group as CloudWatch describes it; None where there is none."""
        name, logs = self._config.log_group, self._clients.logs
        with translated(f"The log group {name} could not be looked for"):
            pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=name)
            return next(
                (group for page in pages for group in field_of(page, "logGroups") if group["logGroupName"] == name),
                None,
            )

    def retention(self, group: Mapping[str, Any]) -> Guard:
        """The group retains its lines for as long as the settings say."""
        name, wanted, actual = self._config.log_group, self._config.log_days, group.get("retentionInDays")
        kept = "for ever" if actual is None else f"{actual} days"
        return Guard(
            of=f"log group {name}",
            wrong=[] if actual == wanted else [f"lines are kept {kept}; NOMADS_AWS_LOG_DAYS says {wanted} days"],
            advice="Set the retention in CloudWatch, which deletes older lines, or change NOMADS_AWS_LOG_DAYS.",
        )

    # Machines and queue

    def machines(self) -> Any:
        """The compute environment as AWS Batch describes it; None where there is none."""
        with translated("AWS Batch did not show its compute environments"):
            answer = self._clients.batch.describe_compute_environments(
                computeEnvironments=[self._config.compute_environment]
            )
            found = field_of(answer, "computeEnvironments")
        return found[0] if found else None

    def queue(self) -> Any:
        """The queue as AWS Batch describes it; None where there is none."""
        with translated("AWS Batch did not show its queues"):
            found = field_of(self._clients.batch.describe_job_queues(jobQueues=[self._config.queue]), "jobQueues")
        return found[0] if found else None

    def machines_state(self, found: Mapping[str, Any]) -> Guard:
        """The machines are enabled."""
        return Guard(
            of=f"compute environment {self._config.compute_environment}",
            wrong=[] if found["state"] == "ENABLED" else ["is disabled; it should be enabled"],
            advice="Enable it in the AWS Batch console, unless somebody disabled it on purpose.",
        )

    def queue_state(self, found: Mapping[str, Any]) -> Guard:
        """The queue is enabled, and the compute environment serves it."""
        served = [str(item["computeEnvironment"]).rpartition("/")[2] for item in found["computeEnvironmentOrder"]]
        wrong = [] if found["state"] == "ENABLED" else ["is disabled; it should be enabled"]
        if (wanted := self._config.compute_environment) not in served:
            wrong.append(f"{' and '.join(served) or 'nothing'} serves it; it should be {wanted}")
        return Guard(
            of=f"queue {self._config.queue}",
            wrong=wrong,
            advice="Change it in the AWS Batch console, or name another one in NOMADS_AWS_QUEUE.",
        )

    def queue_limits(self, found: Mapping[str, Any]) -> Guard:
        """The queue gives up jobs that wait at its head for longer than the settings say."""
        wanted = self.limits
        actual = {limit["reason"]: dict(limit) for limit in found.get("jobStateTimeLimitActions", ())}
        wrong = []
        for limit in wanted:
            there = actual.get(limit["reason"])
            if there is None:
                wrong.append(f"has no limit for {limit['reason']}; it should be {limit['maxTimeSeconds']} s")
            elif there != limit:
                wrong.append(
                    f"the limit for {limit['reason']} is {there['action']} after {there['maxTimeSeconds']} s; "
                    f"it should be {limit['action']} after {limit['maxTimeSeconds']} s"
                )
        return Guard(of=f"queue {self._config.queue}", wrong=wrong, advice="Set it so in the AWS Batch console.")

    @property
    def limits(self) -> list[dict[str, Any]]:
        """`jobStateTimeLimitActions` of the queue."""
        return [
            {
                "reason": reason,
                "state": "RUNNABLE",
                "maxTimeSeconds": self._config.stuck_seconds,
                "action": "CANCEL",
            }
            for reason in STUCK
        ]


_PARTS: Mapping[str, tuple[str, ...]] = {
    "image": ("containerProperties", "image"),
    "job role": ("containerProperties", "jobRoleArn"),
    "execution role": ("containerProperties", "executionRoleArn"),
    "secret": ("containerProperties", "secrets"),
    "log configuration": ("containerProperties", "logConfiguration"),
    "retry strategy": ("retryStrategy",),
    "time limit": ("timeout",),
}


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In what a job definition that AWS Batch shows differs from the request that would register the wanted one."""
    pairs = {name: (_at(found, path), _at(wanted, path)) for name, path in _PARTS.items()}
    return [
        f"its {name} is {_shown(actual)}; it should be {_shown(expected)}"
        for name, (actual, expected) in pairs.items()
        if not _as(actual, expected)
    ]


def _at(whole: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = whole
    for key in path:
        found = (found or {}).get(key)
    return found


def _as(actual: Any, wanted: Any) -> bool:
    """Whether AWS shows what was asked for; AWS may add empty parts, and writes actions as it likes."""
    match wanted:
        case dict():
            return isinstance(actual, dict) and all(_as(actual.get(key), value) for key, value in wanted.items())
        case list():
            return (
                isinstance(actual, list)
                and len(actual) == len(wanted)
                and all(_as(one, other) for one, other in zip(actual, wanted, strict=True))
            )
        case "RETRY" | "EXIT":
            return bool(str(actual).upper() == wanted)
        case None:
            return not actual
        case _:
            same: bool = actual == wanted
            return same


def _shown(value: Any) -> str:
    return "not set" if not value else value if isinstance(value, str) else json.dumps(value)


def _of_all(rule: Mapping[str, Any]) -> bool:
    """Whether a lifecycle rule is for every object."""
    chosen = rule.get("Filter") or {"Prefix": rule.get("Prefix", "")}
    return set(chosen) == {"Prefix"} and not chosen["Prefix"]


def _sid(statement: Mapping[str, Any]) -> str:
    return str(statement.get("Sid") or "without a Sid")
