"""deploy/nomads.yaml: who gets in, what is encrypted, and that it says what the bot's code says.

`make lint` runs cfn-lint on it; what is here, cfn-lint does not look at.
"""

from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

import pytest
from botocore.loaders import Loader
from psycopg import pq
from sqlalchemy import create_engine, make_url

from bot.aws.config import LOG_DAYS, AwsConfig
from bot.aws.costs import IMAGES_KEPT
from bot.aws.guards import STUCK, UPLOAD_DAYS
from bot.aws.template import parameters
from bot.domain import urls
from bot.settings import Settings
from tests.support.template import (
    TEXT,
    listed,
    properties,
    resources,
    setting_of,
    statements,
    template,
    text,
    whole,
    within,
)

LIMIT = 51_200
"""Bytes of a template that CloudFormation takes in a request, without a bucket to fetch it from."""
FARGATE = {"256": ("512", "1024", "2048"), "512": ("1024", "2048", "3072", "4096")}
"""Memory in MiB that Fargate gives with so many units of processor (ECS developer guide, task size)."""


def batch_shape(name: str) -> dict[str, Any]:
    """A shape of AWS Batch, as botocore knows it."""
    shape: dict[str, Any] = Loader().load_service_model("batch", "service-2")["shapes"][name]
    return shape


def settings_of_the_task() -> dict[str, Any]:
    """The environment of the bot on Fargate, without what only a container has."""
    [container] = properties("Task")["ContainerDefinitions"]
    return {item["Name"]: item["Value"] for item in container["Environment"] if item["Name"] != "TMPDIR"}


def settings_of_the_instance() -> dict[str, str]:
    """What the instance's script writes for the bot."""
    script, _ = properties("BotInstance")["UserData"]["Fn::Base64"]["Fn::Sub"]
    return dict(re.findall(r"(?:^|\\n|')(NOMADS_[A-Z_]+)=([^\n\\]*)", script, re.M))


def outputs() -> dict[str, Any]:
    """The outputs that are settings, by the settings' names."""
    return {
        setting_of(name): output["Value"] for name, output in template()["Outputs"].items() if name.startswith("Nomads")
    }


def test_it_fits_into_a_request_and_asks_cfn_lint_for_no_exception() -> None:
    assert len(TEXT.encode()) < LIMIT
    assert "cfn-lint" not in TEXT


# Who gets in


def test_the_bucket_is_private_encrypted_and_stays() -> None:
    bucket = properties("Bucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    assert {template()["Resources"]["Bucket"][p] for p in ("DeletionPolicy", "UpdateReplacePolicy")} == {"Retain"}
    assert list(resources("AWS::S3::Bucket")) == ["Bucket"]


def test_no_policy_of_a_resource_lets_anybody_in_and_each_denies_what_comes_without_tls() -> None:
    policies = resources("AWS::S3::BucketPolicy") | resources("AWS::SQS::QueuePolicy")
    assert len(policies) == 3
    for policy in policies.values():
        found = policy["PolicyDocument"]["Statement"]
        [denial] = [statement for statement in found if statement["Effect"] == "Deny"]
        assert denial["Principal"] == "*"
        assert denial["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for statement in found:
            if statement["Effect"] == "Allow":
                assert statement["Principal"] == {"Service": "events.amazonaws.com"}
                assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": ["Events", "Arn"]}}}


def test_nothing_comes_in_but_the_bot_to_its_database() -> None:
    ingress: dict[str, Any] = {
        name: group.get("SecurityGroupIngress") for name, group in resources("AWS::EC2::SecurityGroup").items()
    }
    [allowed] = ingress.pop("DatabaseGroup")
    assert allowed["SourceSecurityGroupId"] == {"Fn::GetAtt": ["BotGroup", "GroupId"]}
    assert (allowed["FromPort"], allowed["ToPort"]) == (5432, 5432)
    assert set(ingress.values()) == {None}
    assert not resources("AWS::EC2::SecurityGroupIngress")
    assert properties("Database")["PubliclyAccessible"] is False


def test_machines_give_credentials_to_no_request_without_a_session() -> None:
    assert properties("Launch")["LaunchTemplateData"]["MetadataOptions"]["HttpTokens"] == "required"
    for machines in resources("AWS::Batch::ComputeEnvironment").values():
        assert machines["ComputeResources"]["LaunchTemplate"]["LaunchTemplateId"] == {"Ref": "Launch"}
    assert properties("BotInstance")["MetadataOptions"] == {
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "HttpEndpoint": "enabled",
    }


def test_every_disk_and_database_is_encrypted_and_what_a_bot_knows_outlives_it() -> None:
    root, own = (disk["Ebs"] for disk in properties("BotInstance")["BlockDeviceMappings"])
    assert (root["Encrypted"], own["Encrypted"]) == (True, True)
    assert (root["DeleteOnTermination"], own["DeleteOnTermination"]) == (True, False)
    database = template()["Resources"]["Database"]
    assert properties("Database")["StorageEncrypted"] is True
    assert (database["DeletionPolicy"], database["UpdateReplacePolicy"]) == ("Snapshot", "Snapshot")


@pytest.mark.parametrize("name", ["Bucket", "BucketPolicy"])
def test_results_stay_with_what_guards_them(name: str) -> None:
    resource = template()["Resources"][name]
    assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")


@pytest.mark.parametrize("name", ["MachinesGroup", "BotGroup"])
def test_what_has_an_address_of_its_own_begins_after_the_way_out_and_goes_before_it(name: str) -> None:
    tags = {tag["Key"]: tag["Value"] for tag in properties(name)["Tags"]}
    assert tags["Routes"] == {"Fn::If": ["OwnNetwork", {"Fn::Sub": "${RoutesA} ${RoutesB}"}, "yours"]}
    for routes in ("RoutesA", "RoutesB"):
        assert template()["Resources"][routes]["DependsOn"] == "WayOut"
    assert template()["Resources"]["WayOut"]["DependsOn"] == "GatewayAttachment"


def test_what_runs_has_an_address_of_its_own_and_its_way_out_goes_through_the_gateway() -> None:
    own = {"Fn::If": ["OwnNetwork", [{"Ref": "SubnetA"}, {"Ref": "SubnetB"}], {"Ref": "SubnetIds"}]}
    assert all(subnet["MapPublicIpOnLaunch"] is True for subnet in resources("AWS::EC2::Subnet").values())
    for letter in "AB":
        routes = {"SubnetId": {"Ref": f"Subnet{letter}"}, "RouteTableId": {"Ref": "Routes"}}
        assert properties(f"Routes{letter}") == routes
    assert resources("AWS::EC2::Route") == {
        "WayOut": {
            "RouteTableId": {"Ref": "Routes"},
            "DestinationCidrBlock": "0.0.0.0/0",
            "GatewayId": {"Ref": "Gateway"},
        }
    }
    assert properties("GatewayAttachment") == {"VpcId": {"Ref": "Vpc"}, "InternetGatewayId": {"Ref": "Gateway"}}
    network = properties("Service")["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert (network["AssignPublicIp"], network["Subnets"]) == ("ENABLED", own), "Fargate asks no subnet for an address"
    for machines in resources("AWS::Batch::ComputeEnvironment").values():
        assert machines["ComputeResources"]["Subnets"] == own
    first = {"Fn::Select": [0, {"Ref": "SubnetIds"}]}
    assert properties("BotInstance")["SubnetId"] == {"Fn::If": ["OwnNetwork", {"Ref": "SubnetA"}, first]}


def test_each_kind_of_machine_is_in_its_own_group_as_the_bot_s_lets_it_into_the_database() -> None:
    bot, machines, database = (
        [{"Fn::GetAtt": [f"{name}Group", "GroupId"]}] for name in ("Bot", "Machines", "Database")
    )
    assert properties("BotInstance")["SecurityGroupIds"] == bot
    assert properties("Service")["NetworkConfiguration"]["AwsvpcConfiguration"]["SecurityGroups"] == bot
    assert properties("Database")["VPCSecurityGroups"] == database
    for environment in resources("AWS::Batch::ComputeEnvironment").values():
        assert environment["ComputeResources"]["SecurityGroupIds"] == machines


def test_no_secret_is_a_parameter_or_stands_in_the_template() -> None:
    telling = re.compile(r"token|password|secret", re.I)
    assert not [name for name in template()["Parameters"] if telling.search(name)]
    assert not [name for name, _ in within(template()) if name == "SecretString"]
    assert properties("Database")["MasterUserPassword"] == {
        "Fn::Sub": "{{resolve:secretsmanager:${DatabasePassword}:SecretString:::}}"
    }
    assert not [name for name in settings_of_the_task() | settings_of_the_instance() if telling.search(name)]
    url = settings_of_the_task()["NOMADS_DATABASE_URL"]["Fn::Sub"][0]
    assert urls.database(url.replace("${Host}", "host.example.org"))
    assert url.startswith("postgresql://nomads@"), "PGPASSWORD has the password"


def test_the_bot_s_own_secrets_are_none_that_the_bot_or_jobs_may_read_by_the_prefix() -> None:
    names = [secret["Name"]["Fn::Sub"] for secret in resources("AWS::SecretsManager::Secret").values()]
    assert len(names) == 4
    assert all(name.startswith("${Name}-bot/") for name in names)


# The bot's own service


def test_fargate_gives_that_memory_with_that_processor_and_the_container_is_closed() -> None:
    task = properties("Task")
    assert task["Memory"] in FARGATE[task["Cpu"]]
    [container] = task["ContainerDefinitions"]
    assert container["ReadonlyRootFilesystem"] is True
    assert container["User"] == "10001"
    assert container["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
    assert container["HealthCheck"]["StartPeriod"] <= 300
    assert container["StopTimeout"] <= 120


def test_the_service_starts_no_bot_before_its_image_and_its_tokens_are_there_for_which_a_first_make_would_wait() -> (
    None
):
    assert properties("Service")["DesiredCount"] == {"Ref": "BotCount"}
    assert template()["Parameters"]["BotCount"]["Default"] == 0


def test_a_bot_that_does_not_start_gives_way_to_the_one_before_it_which_runs_until_then() -> None:
    assert properties("Service")["DeploymentConfiguration"] == {
        "DeploymentCircuitBreaker": {"Enable": True, "Rollback": True},
        "MinimumHealthyPercent": 100,
        "MaximumPercent": 200,
    }


def test_the_database_can_be_had_back_as_of_any_day_of_a_week() -> None:
    assert properties("Database")["BackupRetentionPeriod"] == 7


def test_service_and_instance_run_the_image_of_their_architecture() -> None:
    image = "${BotImages.RepositoryUri}:${ImageTag}-${Architecture}"
    [container] = properties("Task")["ContainerDefinitions"]
    script, _ = properties("BotInstance")["UserData"]["Fn::Base64"]["Fn::Sub"]
    assert container["Image"] == {"Fn::Sub": image}
    assert re.findall(r"\$\{BotImages\.RepositoryUri\}\S*", script) == [image, image]


def test_the_instance_s_script_waits_for_the_disk_of_the_database_by_its_name() -> None:
    script, _ = properties("BotInstance")["UserData"]["Fn::Base64"]["Fn::Sub"]
    [kept] = [
        disk["DeviceName"]
        for disk in properties("BotInstance")["BlockDeviceMappings"]
        if not disk["Ebs"]["DeleteOnTermination"]
    ]

    assert set(re.findall(r"/dev/[a-z]+\b(?<!/dev/null)", script)) == {kept}
    assert properties("Task")["RuntimePlatform"]["CpuArchitecture"] == {"Fn::If": ["Arm", "ARM64", "X86_64"]}
    assert template()["Conditions"]["Arm"] == {"Fn::Equals": [{"Ref": "Architecture"}, "arm64"]}


def test_a_task_with_secrets_has_an_execution_role_that_may_read_them() -> None:
    task = properties("Task")
    assert task["ExecutionRoleArn"] == {"Fn::GetAtt": ["BotExecutionRole", "Arn"]}
    assert properties("BotExecutionRole")["ManagedPolicyArns"] == [{"Ref": "StartPolicy"}]
    readable = [whole(resource) for s in statements("StartPolicy") for resource in listed(s["Resource"])]
    [container] = task["ContainerDefinitions"]
    assert {item["Name"] for item in container["Secrets"]} == {
        *("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "NOMADS_SECRET_KEY", "PGPASSWORD")
    }
    assert all(item["ValueFrom"] in readable for item in container["Secrets"])


def test_service_and_instance_and_env_file_have_the_same_settings() -> None:
    task, instance, env = settings_of_the_task(), settings_of_the_instance(), outputs()
    own = {"NOMADS_DATABASE_URL", "NOMADS_ADMINS"}
    assert set(task) - own == set(env)
    assert set(instance) - own == set(env)
    _, further = properties("BotInstance")["UserData"]["Fn::Base64"]["Fn::Sub"]
    assert instance.pop("NOMADS_IMAGES") == "${Programs}"
    assert further["Programs"] == env["NOMADS_IMAGES"] == task["NOMADS_IMAGES"]
    for name in set(env) - {"NOMADS_MAIL", "NOMADS_MAIL_FROM", "NOMADS_IMAGES"}:
        assert task[name] == env[name], name
        assert instance[name] == text(env[name]), name


def test_every_setting_that_it_gives_is_one_that_the_bot_reads() -> None:
    known = {f"NOMADS_{name.upper()}" for name in Settings.model_fields}
    known |= {f"NOMADS_AWS_{name.upper()}" for name in AwsConfig.model_fields}
    assert set(outputs()) <= known
    assert set(settings_of_the_task()) <= known


def test_the_database_s_password_reaches_libpq_although_its_address_has_none() -> None:
    url = make_url(settings_of_the_task()["NOMADS_DATABASE_URL"]["Fn::Sub"][0].replace("${Host}", "host.example.org"))
    _, given = create_engine(url.set(drivername="postgresql+psycopg")).dialect.create_connect_args(url)
    assert given["host"] == "host.example.org"
    assert given["sslmode"] == "require"
    assert "password" not in given
    variables = {option.keyword: option.envvar for option in pq.Conninfo.get_defaults()}
    assert variables[b"password"] == b"PGPASSWORD"


# Machines, queues and events


def test_jobs_run_on_spot_machines_first_and_lasting_ones_on_machines_that_are_not_taken_back() -> None:
    spot, lasting = (properties(name)["ComputeResources"] for name in ("SpotMachines", "OnDemandMachines"))
    assert (spot["Type"], spot["AllocationStrategy"]) == ("SPOT", "SPOT_PRICE_CAPACITY_OPTIMIZED")
    assert (lasting["Type"], lasting["AllocationStrategy"]) == ("EC2", "BEST_FIT_PROGRESSIVE")
    assert {spot["Type"], lasting["Type"]} <= set(batch_shape("CRType")["enum"])
    strategies = set(batch_shape("CRAllocationStrategy")["enum"])
    assert {spot["AllocationStrategy"], lasting["AllocationStrategy"]} <= strategies
    for queue, machines in (("Queue", "SpotMachines"), ("QueueOnDemand", "OnDemandMachines")):
        assert properties(queue)["ComputeEnvironmentOrder"] == [{"Order": 1, "ComputeEnvironment": {"Ref": machines}}]
        assert properties(machines)["ComputeResources"]["MinvCpus"] == 0


def test_no_more_processors_run_at_once_than_is_said_for_each_kind_of_machines() -> None:
    most = {name: properties(name)["ComputeResources"]["MaxvCpus"] for name in ("SpotMachines", "OnDemandMachines")}
    assert most == {"SpotMachines": {"Ref": "MaxVcpus"}, "OnDemandMachines": {"Ref": "MaxVcpusOnDemand"}}


def test_what_can_be_switched_off_is_on() -> None:
    states = {
        name: resource["Properties"]["State"]
        for name, resource in template()["Resources"].items()
        if "State" in resource["Properties"]
    }
    assert states == dict.fromkeys(("SpotMachines", "OnDemandMachines", "Queue", "QueueOnDemand", "Events"), "ENABLED")


def test_a_compute_environment_is_updated_in_place_since_its_name_is_given() -> None:
    for machines in resources("AWS::Batch::ComputeEnvironment").values():
        assert machines["ReplaceComputeEnvironment"] is False
        minutes = batch_shape("JobExecutionTimeoutMinutes")
        assert minutes["min"] <= machines["UpdatePolicy"]["JobExecutionTimeoutMinutes"] <= minutes["max"]
        assert "ServiceRole" not in machines  # AWS updates in place only with its own service-linked role


def test_queues_give_up_what_cannot_start_as_the_doctor_looks_for() -> None:
    for queue in resources("AWS::Batch::JobQueue").values():
        assert [limit["Reason"] for limit in queue["JobStateTimeLimitActions"]] == list(STUCK)
        for limit in queue["JobStateTimeLimitActions"]:
            assert (limit["State"], limit["Action"]) == ("RUNNABLE", "CANCEL")
            assert limit["MaxTimeSeconds"] == {"Ref": "StuckSeconds"}
    stuck = template()["Parameters"]["StuckSeconds"]
    assert (stuck["MinValue"], stuck["MaxValue"]) == (600, 86_400)


def test_both_queues_share_fairly_and_the_bot_is_told_so() -> None:
    for queue in resources("AWS::Batch::JobQueue").values():
        assert queue["SchedulingPolicyArn"] == {"Ref": "Shares"}
    assert outputs()["NOMADS_AWS_FAIR_SHARE"] == "true"


def test_what_a_person_has_used_counts_for_an_hour_and_nothing_is_kept_for_people_who_use_nothing() -> None:
    assert properties("Shares")["FairsharePolicy"] == {"ShareDecaySeconds": 3600, "ComputeReservation": 0}


def test_the_rule_hears_of_the_two_queues_jobs_in_keys_that_events_have() -> None:
    pattern = properties("Events")["EventPattern"]
    assert set(pattern) <= {
        "source",
        "detail-type",
        "detail",
        "account",
        "region",
        "resources",
        "time",
        "id",
        "version",
    }
    assert set(pattern["detail"]) <= set(batch_shape("JobDetail")["members"])
    assert pattern["source"] == ["aws.batch"]
    assert pattern["detail-type"] == ["Batch Job State Change", "Batch Job Queue Blocked"]
    assert pattern["detail"]["jobQueue"] == [{"Ref": "Queue"}, {"Ref": "QueueOnDemand"}]


def test_an_event_that_nobody_can_take_is_kept_apart() -> None:
    queue = properties("EventsQueue")
    lost = {"Fn::GetAtt": ["LostEvents", "Arn"]}
    assert queue["RedrivePolicy"] == {"deadLetterTargetArn": lost, "maxReceiveCount": 5}
    assert properties("Events")["Targets"][0]["DeadLetterConfig"] == {"Arn": lost}
    assert all(queue["SqsManagedSseEnabled"] for queue in resources("AWS::SQS::Queue").values())


def test_a_budget_mails_at_80_per_cent_and_when_more_than_all_of_it_is_to_be_expected() -> None:
    assert template()["Resources"]["MonthlyBudget"]["Condition"] == "Budget"
    asked = {"Fn::Not": [{"Fn::Equals": [{"Ref": "BudgetDollars"}, 0]}]}
    assert template()["Conditions"]["Budget"] == asked
    rule = template()["Rules"]["BudgetNeedsMail"]
    assert rule["RuleCondition"] == asked
    [assertion] = rule["Assertions"]
    assert assertion["Assert"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmMail"}, ""]}]}
    assert "AlarmMail" in assertion["AssertDescription"]
    budget = properties("MonthlyBudget")
    assert budget["Budget"] == {
        "BudgetName": {"Fn::Sub": "${Name}-monthly"},
        "BudgetType": "COST",
        "TimeUnit": "MONTHLY",
        "BudgetLimit": {"Amount": {"Ref": "BudgetDollars"}, "Unit": "USD"},
    }
    assert budget["NotificationsWithSubscribers"] == [
        {
            "Notification": {
                "NotificationType": kind,
                "ComparisonOperator": "GREATER_THAN",
                "Threshold": threshold,
                "ThresholdType": "PERCENTAGE",
            },
            "Subscribers": [{"SubscriptionType": "EMAIL", "Address": {"Ref": "AlarmMail"}}],
        }
        for kind, threshold in (("ACTUAL", 80), ("FORECASTED", 100))
    ]


def test_the_command_reads_of_the_parameters_what_yaml_says() -> None:
    read = parameters(TEXT)
    stated = template()["Parameters"]
    assert list(read) == list(stated)
    for name, one in read.items():
        wanted = stated[name]
        assert (one.kind, one.default) == (wanted["Type"], str(wanted["Default"])), name
        assert one.allowed == tuple(map(str, wanted.get("AllowedValues", ()))), name
        assert (one.pattern, one.wish) == (
            wanted.get("AllowedPattern", ""),
            wanted.get("ConstraintDescription", ""),
        ), name
        bounds = (one.least, one.most, one.shortest or None, one.longest)
        assert bounds == tuple(wanted.get(key) for key in ("MinValue", "MaxValue", "MinLength", "MaxLength")), name
        assert set(wanted) <= {
            *("Type", "Default", "AllowedValues", "AllowedPattern", "ConstraintDescription", "Description"),
            *("MinValue", "MaxValue", "MinLength", "MaxLength"),
        }, name
        assert not one.wrong(one.default), name
        assert one.wish or not one.pattern, name


@pytest.mark.parametrize(
    ("dollars", "fits"),
    [("0", True), ("100", True), ("99.50", True), ("0.5", True), ("0.0", False), ("-1", False), ("1e3", False)],
)
def test_a_number_is_one_and_zero_is_written_in_one_way_only(dollars: str, fits: bool) -> None:
    assert (not parameters(TEXT)["BudgetDollars"].wrong(dollars)) == fits


@pytest.mark.parametrize(
    "text", ["Parameters:\n  A: {Type: String}\n", "Parameters:\n  A:\n    Type: >-\n      String\n"]
)
def test_what_the_command_does_not_read_of_yaml_it_says(text: str) -> None:
    with pytest.raises(ValueError, match="is no line of a parameter"):
        parameters(text)


def test_no_installation_is_named_so_that_it_reads_another_one_s_secrets() -> None:
    name = parameters(TEXT)["Name"]
    alphabet = "bot-a7"
    for tried in map("".join, (word for length in range(1, 7) for word in product(alphabet, repeat=length))):
        fits = re.fullmatch(r"[a-z][a-z0-9-]{1,19}", tried) is not None and not tried.endswith("-bot")
        assert (not name.wrong(tried)) == fits, tried
    assert not name.wrong("n" * 20)
    assert name.wrong("n" * 21)
    for reader in ("BotPolicy", "ExecutionRole"):
        assert "secret:${Name}/*" in str(statements(reader)), "of the installation NAME-bot this is NAME-bot/*"


def test_broken_uploads_are_dropped_as_the_doctor_looks_for() -> None:
    [rule] = properties("Bucket")["LifecycleConfiguration"]["Rules"]
    assert rule == {
        "Id": "nomads-incomplete-uploads",
        "Status": "Enabled",
        "Prefix": "",
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UPLOAD_DAYS},
    }


def test_log_groups_keep_lines_for_a_time_that_cloudwatch_offers() -> None:
    assert tuple(template()["Parameters"]["LogDays"]["AllowedValues"]) == LOG_DAYS
    for group in resources("AWS::Logs::LogGroup").values():
        assert group["RetentionInDays"] == {"Ref": "LogDays"}


def test_images_are_scanned_cannot_change_under_their_tag_and_go_once_newer_ones_are_there() -> None:
    repositories = resources("AWS::ECR::Repository")
    assert len(repositories) == 3
    for repository in repositories.values():
        assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
        assert repository["ImageTagMutability"] == "IMMUTABLE"
        assert repository["EmptyOnDelete"] is True
        assert repository["LifecyclePolicy"] == {
            "LifecyclePolicyText": {"Fn::FindInMap": ["Repositories", "Images", "Lifecycle"]}
        }
    untagged, old = json.loads(template()["Mappings"]["Repositories"]["Images"]["Lifecycle"])["rules"]
    assert untagged["selection"]["tagStatus"] == "untagged"
    assert old["rulePriority"] > untagged["rulePriority"], "ECR wants the rule for all images last"
    assert old["selection"] == {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": IMAGES_KEPT}
    assert untagged["action"] == old["action"] == {"type": "expire"}


@pytest.mark.parametrize("name", ["Bot", "Architecture", "Network"])
def test_what_may_be_chosen_is_listed(name: str) -> None:
    parameter = template()["Parameters"][name]
    assert parameter["Default"] in parameter["AllowedValues"]
