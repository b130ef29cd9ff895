"""What every method runs in: the loop over passes, options, life cycle, logs, and what single methods ask of a run."""
