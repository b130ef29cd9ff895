# shellcheck shell=bash
# Sourced by what trains into folders.

# hold FOLDER: no other training in FOLDER until this shell, and whatever it has started, have ended or hold another one.
# A training whose shell was killed holds on: whoever begins again waits for it, instead of writing between its lines.
# The lock of a grid, RUN/lock, is another one: it also covers the scoring, and whoever holds it starts what takes this.
hold() {
  if ! command -v flock >/dev/null; then return; fi
  if [ -n "${held:-}" ]; then exec {held}>&-; fi
  exec {held}>>"$1/training.lock" # not >, which would change a finished run's time
  if ! flock --nonblock "$held"; then
    echo "${0##*/}: another process trains in $1; waiting until it has ended" >&2
    flock "$held"
  fi
}
