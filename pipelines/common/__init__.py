"""What every program shares: its arguments, BOSS, results and the report."""
