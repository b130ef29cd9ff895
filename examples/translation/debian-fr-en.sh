#!/usr/bin/env bash
# Debian's package descriptions, French-English, and with --reverse English-French: plain training against ARCH.
#
# 52,000 training pairs in Debian 12. What the text is and how it is split: debian.sh beside this file.
set -euo pipefail
# shellcheck source=examples/translation/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
# shellcheck source=examples/translation/debian.sh
. "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

corpus=debian-fr-en source=fr language=fr

recipe "$@"; exit # in one line: the file may change while this runs
