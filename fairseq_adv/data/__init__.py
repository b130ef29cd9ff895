"""What a batch brings beside its words: its data as they lie on disk, its cached perturbations, its update."""
