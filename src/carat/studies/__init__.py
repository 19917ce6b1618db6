"""Studies of many training runs: sweeps, ablations and leaderboards."""
