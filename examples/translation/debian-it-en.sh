#!/usr/bin/env bash
# Debian's package descriptions, Italian-English, and with --reverse English-Italian: plain training against ARCH.
#
# 136,000 training pairs, the size of IWSLT'15 in Debian 12. What the text is and how it is split: debian.sh beside this file.
set -euo pipefail
# shellcheck source=examples/translation/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
# shellcheck source=examples/translation/debian.sh
. "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

corpus=debian-it-en source=it language=it

recipe "$@"; exit # in one line: the file may change while this runs
