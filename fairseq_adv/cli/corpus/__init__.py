"""``fairseq-adv corpus``: parallel text that comes with other software, as ``{train,valid,test}.LANG``."""

HELP = "make a parallel corpus out of translated text that comes with other software"
