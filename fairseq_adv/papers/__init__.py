"""What the papers say and where it is here: values, choices that they leave open, and a command for each result.

Plain data, from which ``docs/papers.md`` and ``docs/methods.md`` are written and against which tests hold presets,
recipes and commands.
"""
