"""This machine: programs as subprocesses, results in a folder."""
