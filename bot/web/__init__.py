"""HTTP: Slack's requests, health, and the results that the bot serves."""
