"""Carries out what transactions left to be done, and watches the jobs that compute has."""
