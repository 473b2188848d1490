"""What a statement of a bucket's policy means: whom it lets in, and whether it denies requests without TLS."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

FIXES = frozenset(
    {
        *("aws:sourcearn", "aws:sourcevpc", "aws:sourcevpce", "aws:sourceowner", "aws:sourceaccount"),
        *("aws:principalorgid", "aws:principalaccount", "aws:principalarn", "aws:userid"),
        *("s3:dataaccesspointarn", "s3:dataaccesspointaccount", "s3:x-amz-server-side-encryption-aws-kms-key-id"),
    }
)
"""Condition keys, in lower case, that keep the public out where their values are fixed: S3's user guide, “The meaning
of public”, and the two that name a principal."""
NARROWEST = {4: 8, 6: 32}
"""Bits that a network has to fix, by version of IP, for S3 not to count it as public."""
_ANYBODY = ("*", {"AWS": "*"}, {"AWS": ["*"]})
_EQUALS = frozenset({"stringequals", "stringequalsignorecase", "stringlike", "arnequals", "arnlike"})


def is_public(statement: Mapping[str, Any]) -> bool:
    """Whether a statement lets in anybody, by S3's own rule: no condition holds its requests to fixed values."""
    return (
        statement.get("Effect") == "Allow"
        and _is_for_anybody(statement)
        and not any(_limits(operator, key, values) for operator, key, values in _conditions(statement))
    )


def other_accounts(statement: Mapping[str, Any], own: str) -> list[str]:
    """The ids of the accounts, other than `own`, whose principals the statement lets in, in ascending order."""
    if statement.get("Effect") != "Allow":
        return []
    principal = statement.get("Principal")
    named = listed(principal.get("AWS")) if isinstance(principal, dict) else []
    accounts = {name.split(":")[4] if name.count(":") >= 5 else name for name in map(str, named)}
    return sorted(account for account in accounts if account.isdecimal() and account != own)


def denies_without_tls(statement: Mapping[str, Any]) -> bool:
    """Whether a statement denies everybody every action without TLS, on whatever resources it names."""
    conditions = list(_conditions(statement))
    return (
        statement.get("Effect") == "Deny"
        and statement.get("Principal") in _ANYBODY
        and any(str(action).lower() in ("s3:*", "*") for action in listed(statement.get("Action")))
        and len(conditions) == 1
        # The key is in every request, so that IfExists says no more.
        and conditions[0][0] in ("bool", "boolifexists")
        and conditions[0][1] == "aws:securetransport"
        and {value.lower() for value in conditions[0][2]} == {"false"}
    )


def listed(value: Any) -> list[Any]:
    """A list as it is, None as none, and anything else as a list of itself: policies may leave out brackets."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _is_for_anybody(statement: Mapping[str, Any]) -> bool:
    principal = statement.get("Principal")
    named = principal.get("AWS") if isinstance(principal, dict) else principal
    return "NotPrincipal" in statement or "*" in listed(named)


def _conditions(statement: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Each condition as operator and key in lower case, and values as text."""
    for operator, keys in (statement.get("Condition") or {}).items():
        for key, values in keys.items():
            yield operator.lower(), key.lower(), [str(value) for value in listed(values)]


def _limits(operator: str, key: str, values: Iterable[str]) -> bool:
    """Whether a condition holds requests to fixed values; one that a request without the key passes does not."""
    operator = operator.removeprefix("foranyvalue:")
    if operator == "ipaddress" and key == "aws:sourceip":
        return all(map(_is_narrow, values))
    return operator in _EQUALS and key in FIXES and all(_is_fixed(key, value) for value in values)


def _is_fixed(key: str, value: str) -> bool:
    if key == "s3:dataaccesspointarn":  # arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME, of which any name will do
        value = value.rpartition(":")[0]
    return bool(value) and not set(value) & set("*?$")


def _is_narrow(network: str) -> bool:
    try:
        found = ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
    return found.prefixlen >= NARROWEST[found.version]
