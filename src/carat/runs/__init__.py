"""The run folder: what is written after training and read everywhere else."""
