"""From an address to binarised text: fetch, unpack, read, tokenise, clean, split into subwords."""
