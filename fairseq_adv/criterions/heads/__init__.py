"""What a model answers, one file for each kind of task: its output, loss, divergence, log and evaluation."""
