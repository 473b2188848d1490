"""The application, without Slack listeners."""
