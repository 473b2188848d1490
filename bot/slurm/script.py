"""The script that Slurm runs on a node: one program, and the files by which the bot sees how it went.

The cluster keeps a copy of it and shows that to its admins, so no secret stands in it. The token is in a file of mode
600 in the run's folder, which the script removes before it starts the program.

| file        | says                                                                             |
|-------------|----------------------------------------------------------------------------------|
| `claim`     | a folder: the program was begun, so that it is never begun twice                 |
| `token`     | the token, until the script has read it                                          |
| `begun`     | when the program began, in seconds since 1970; the id of its job; its node       |
| `log`       | what it printed                                                                  |
| `log.times` | a line each time the log was seen to have grown, as `bot.files.records` reads it |
| `finished`  | when it ended, and with which exit code as a shell tells it                      |
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from contract.program import INDEX_VARIABLE, TOKEN_VARIABLE

NOT_THERE = 121
"""How the script ends where a node does not have the run's folder, or cannot write to it."""
NO_TOKEN = 122
"""How it ends where the token's file is gone."""
LOOKS = 2
"""Seconds between two looks at the log's size."""

_SCRIPT = """#!/bin/sh
# One program of NOMADS. No secret stands here.
run={run}
here=$run{number}
umask 077
export PATH=/usr/local/bin:/usr/bin:/bin
cd "$here" || exit {not_there}
mkdir claim 2>/dev/null || {{ [ -d claim ] && exit 0; exit {not_there}; }}
token=$(cat token) || exit {no_token}
rm -f token
tell() {{ printf '%s\\n' "$2" >".$1" && mv ".$1" "$1"; }}
exec >>log 2>&1 </dev/null
: >>log.times
tell begun "$(date +%s) ${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}} ${{SLURMD_NODENAME:-unknown}}"
(
  umask 027
  cd {root} 2>/dev/null || cd /
  export PYTHONUNBUFFERED=1
{exports}
  exec {command}
) &
program=$!
unset token
trap 'kill -TERM "$program" 2>/dev/null' TERM INT
(
  last=0
  while sleep {looks}; do
    size=$(wc -c <"$here/log")
    [ "$size" = "$last" ] || printf '%s %s\\n' "$(date +%s)" "$size" >>"$here/log.times"
    last=$size
  done
) &
watch=$!
wait "$program"
code=$?
while kill -0 "$program" 2>/dev/null; do
  wait "$program"
  code=$?
done
kill "$watch" 2>/dev/null
cd "$here" && tell finished "$(date +%s) $code"
exit "$code"
"""


def script(
    *, run: Path, is_array: bool, root: Path, argv: Sequence[str], python: str, image: str, apptainer: str, binds: Path
) -> str:
    """The script of a run. `argv` is the program, on `python` if it begins with python3; in `image` if one is given.

    `root` is the program's working directory where there is no image, and `binds` the folder that an image sees.
    """
    variables = {TOKEN_VARIABLE: '"$token"'}
    if is_array:
        variables[INDEX_VARIABLE] = '"$SLURM_ARRAY_TASK_ID"'
    command = [python if argv[0] == "python3" and not image else argv[0], *argv[1:]]
    if image:
        # The node's environment stays outside; what the program is told comes in under names of Apptainer's.
        variables = {f"APPTAINERENV_{name}": value for name, value in variables.items()}
        variables["APPTAINERENV_PYTHONUNBUFFERED"] = "1"
        command = [apptainer, "exec", "--cleanenv", "--pwd", IMAGE_ROOT, "--bind", str(binds), image, *command]
    return _SCRIPT.format(
        run=shlex.quote(str(run)),
        number='/"$SLURM_ARRAY_TASK_ID"' if is_array else "",
        root=shlex.quote(str(root)),
        not_there=NOT_THERE,
        no_token=NO_TOKEN,
        looks=LOOKS,
        exports=_exports(variables),
        command=shlex.join(command),
    )


IMAGE_ROOT = "/srv/nomads"
"""The working directory of the images that pipelines/Dockerfile makes."""


def _exports(variables: Mapping[str, str]) -> str:
    """Lines of the shell that export variables: no command line has their values."""
    return "\n".join(f"  export {name}={value}" for name, value in variables.items())
