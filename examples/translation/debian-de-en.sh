#!/usr/bin/env bash
# Debian's package descriptions, German-English, and with --reverse English-German: plain training against ARCH.
#
# 37,000 training pairs in Debian 12. What the text is and how it is split: debian.sh beside this file.
set -euo pipefail
# shellcheck source=examples/translation/recipe.sh
. "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"
# shellcheck source=examples/translation/debian.sh
. "$(dirname "${BASH_SOURCE[0]}")/debian.sh"

corpus=debian-de-en source=de language=de

recipe "$@"; exit # in one line: the file may change while this runs
