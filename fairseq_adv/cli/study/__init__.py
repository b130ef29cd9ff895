"""``fairseq-adv study NAME``: studies that train many models and end with a table and a figure."""

HELP = "train many models to answer one question; ends with a table and a figure"
