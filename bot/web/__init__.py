"""HTTP: Slack's requests, health, and the links that the bot answers."""
