"""Slack: the Web API behind chat, and what people see of jobs in Block Kit."""
