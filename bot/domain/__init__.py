"""The terms of NOMADS, and the rules that need no database and no service."""
