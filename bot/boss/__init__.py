"""BOSS: what it says of its volumes, asked within deadlines that hold."""
