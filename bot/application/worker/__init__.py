"""Performs the effects that transactions enqueued, and watches the jobs that compute has."""
