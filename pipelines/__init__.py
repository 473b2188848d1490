"""Programs that run in a job. They know nothing of the bot."""
