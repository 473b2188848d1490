"""Volumes by address beside BOSS's, behind the port `Volumes`."""
