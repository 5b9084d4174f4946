#!/bin/sh
# Run one stage: `sh pipeline/stages/run.sh train`. DVC calls it, from the repository or from a copy.
# An activated environment wins, then the project's own .venv (beside $DVC_ROOT, which a copy made by
# `dvc exp run --temp` does not contain), then whatever `python3` is.
if [ -n "$VIRTUAL_ENV$CONDA_PREFIX" ]; then
    python=python
elif [ -x "${DVC_ROOT:-.}/.venv/bin/python" ]; then
    python="${DVC_ROOT:-.}/.venv/bin/python"
else
    python=python3
fi
# glibc gives large freed blocks back to the system and faults them in again at the next update; keeping
# them, on huge pages, makes updates 5 to 30 per cent faster. Other C libraries ignore this.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456}"
# exec, so that the stage is a child of DVC and notices its death.
exec "$python" -m "pipeline.stages.$1"
