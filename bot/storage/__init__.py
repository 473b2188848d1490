"""The database: jobs, their story, the outbox, people and sealed tokens."""
