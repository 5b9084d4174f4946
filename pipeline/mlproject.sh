#!/bin/sh
# Run an entry point of MLproject with the activated environment, the project's own .venv, or whatever
# `python3` is, in this order, as stages do.
if [ -n "$VIRTUAL_ENV$CONDA_PREFIX" ]; then
    python=python
elif [ -x .venv/bin/python ]; then
    python=.venv/bin/python
else
    python=python3
fi
exec "$python" -m pipeline.mlproject "$@"
