"""Stand-ins of Slack, BOSS and mail servers, and the demo that connects them."""
