"""``fairseq-adv corpus STEP``: from the address of a corpus to subwords, step by step."""

HELP = "make parallel text: fetch, unpack, read, tokenise, clean and split into subwords, or take a package's"
