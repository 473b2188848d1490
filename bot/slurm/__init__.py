"""Programs on a cluster that Slurm runs."""
