"""The host's side: programs, runs and their folders, checkpoints, devices, reports and benchmarks."""
