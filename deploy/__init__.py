"""What a release and an installation need beside the programs themselves."""
