"""The run folder, written by training and read by everything else."""
