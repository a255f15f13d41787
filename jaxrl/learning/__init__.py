"""What several algorithms share between a trajectory and new parameters."""
