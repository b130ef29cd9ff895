"""Many trainings as one command: runs that survive kill -9, grids, sweeps and studies with their tables."""
