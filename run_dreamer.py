"""`dreamer train` as a script: `python run_dreamer.py --env CartPole-v1 --steps 30000`."""

import sys

from pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
