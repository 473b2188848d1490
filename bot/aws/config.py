"""The settings of the AWS module, each named in the environment as NOMADS_AWS_ and its name."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict


class AwsConfig(BaseSettings):
    """Names and places in the AWS account; credentials come from boto3's usual chain."""

    model_config = SettingsConfigDict(env_prefix="NOMADS_AWS_", env_file=".env", extra="ignore", frozen=True)

    region: str = ""
    """Empty: boto3's usual chain decides."""
    queue: str = "nomads-queue"
    compute_environment: str = "nomads-ce"
    bucket: str = ""
