"""The rules: what may be asked for, what a job becomes when, and which effects that calls for."""
