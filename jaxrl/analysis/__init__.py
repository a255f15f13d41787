"""What becomes of a run: results, statistics, figures and pictures."""
