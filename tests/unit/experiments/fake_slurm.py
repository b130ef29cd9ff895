"""As much of SLURM as submitit calls: jobs are processes of this machine, in a folder that knows them by number."""

from __future__ import annotations

import os
from pathlib import Path

SBATCH = r"""#!/bin/bash
# A job's first start, and each that `scontrol requeue` asked for before it ended.
number=$(($(ls "$FAKE_SLURM" | grep -c '\.script$') + 1))
cp "$1" "$FAKE_SLURM/$number.script"
export SLURM_JOB_ID=$number SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0
export SLURM_JOB_NODELIST=node1
setsid bash -c '
  state=$FAKE_SLURM/$SLURM_JOB_ID.state
  echo RUNNING >"$state"
  while :; do
    bash "$FAKE_SLURM/$SLURM_JOB_ID.script"
    [ -e "$FAKE_SLURM/$SLURM_JOB_ID.requeue" ] || break
    rm "$FAKE_SLURM/$SLURM_JOB_ID.requeue"
  done
  [ "$(cat "$state")" = CANCELLED ] || echo COMPLETED >"$state"
' >/dev/null 2>&1 </dev/null &
echo $! >"$FAKE_SLURM/$number.pid"
echo "Submitted batch job $number"
"""
SRUN = r"""#!/bin/bash
while [ "${1#--}" != "$1" ]; do
  case $1 in --output | --error) shift 2 ;; *) shift ;; esac
done
"$@" >>"$FAKE_SLURM/$SLURM_JOB_ID.log" 2>&1
"""
SACCT = r"""#!/bin/bash
echo "JobID|State|NodeList"
for state in "$FAKE_SLURM"/*.state; do
  number=$(basename "$state" .state)
  echo "$number|$(cat "$state")|node1"
done
"""
SCANCEL = r"""#!/bin/bash
# scancel NUMBER ends a job; scancel NUMBER --signal NAME tells its processes something
leader=$(cat "$FAKE_SLURM/$1.pid")
if [ $# -gt 1 ]; then
  pkill -"$3" --session "$leader" python
else
  echo CANCELLED >"$FAKE_SLURM/$1.state"
  kill -TERM -- "-$leader"
fi
"""
SCONTROL = r"""#!/bin/bash
touch "$FAKE_SLURM/$2.requeue"
"""


def install(folder: Path) -> None:
    """Put the commands into *folder*/bin and on this process's path; what they keep lies in *folder*/jobs."""
    (folder / "bin").mkdir(parents=True)
    (folder / "jobs").mkdir()
    commands = {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": SCANCEL, "scontrol": SCONTROL}
    for name, script in commands.items():
        (folder / "bin" / name).write_text(script)
        (folder / "bin" / name).chmod(0o755)
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    os.environ["FAKE_SLURM"] = str(folder / "jobs")
