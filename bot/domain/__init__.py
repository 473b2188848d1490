"""The words NOMADS is about, and what can be said of them without asking anybody."""
