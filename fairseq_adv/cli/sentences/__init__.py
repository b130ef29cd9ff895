"""``fairseq-adv sentences STEP``: labelled sentences from their source to a table of results."""

HELP = "sets of labelled sentences and pairs: fetch, binarise, score, baselines, table"
