"""`dreamer train`, and the words for parameters that it shares with `dreamer tune`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.arguments.parser import Parser, add_command, whole

if TYPE_CHECKING:
    from pipeline.arguments.parser import Choose
    from pipeline.commands.settings import Wishes

EXAMPLES = """\
Collects, pretrains, trains and evaluates in one folder. The same command again skips what is done
and goes on with what was interrupted. What is said later wins: params.yaml, --preset, --config, the
options with names of their own, --set.

examples:
  dreamer train --preset pendulum --seed 3
  dreamer train --env dmc_walker_walk --steps 100000 --device cuda
  dreamer train --set policy.clip_ratio=0.1 --set 'env.active_modalities=[image]'
  dreamer train --config flat.json --checkpoint outputs/mine
"""


def add_train(choose: Choose) -> None:
    """Train an agent in a folder of its own."""
    parser = add_command(choose, "train", "train an agent, or go on training it", _train, EXAMPLES)
    add_parameters(parser)
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        type=Path,
        help="folder to go on from and to write; default: outputs/<env>-seed<seed>",
    )


def _train(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import train

    return train.run(parameters(args), args.checkpoint)


def add_parameters(parser: Parser) -> None:
    """Add the words that `parameters` reads."""
    add = parser.add_argument
    add("--preset", metavar="NAME", help="overlay of presets/; `dreamer use list` shows them")
    add("--env", metavar="ID", help="a Gymnasium id, module:Id, dmc_<domain>_<task>, MiniGrid-...")
    add("--config", metavar="FILE", type=Path, help="flat JSON configuration; lists for `tune`")
    add(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="any dotted key of params.yaml; may be given several times",
    )
    add(
        "--multimodal",
        action="store_true",
        help="keep every modality; without it the first image, or all but texts and sounds",
    )
    add("--device", metavar="D", help="cpu, cuda or auto")
    add("--steps", metavar="N", type=whole, help="environment steps in all")
    add("--seed", metavar="S", type=whole, help="of everything")
    add(
        "--log-level",
        metavar="L",
        choices=("debug", "info", "warning", "error"),
        help="debug, info, warning or error",
    )


def parameters(args: argparse.Namespace) -> Wishes:
    """What was said of the parameters."""
    from pipeline.commands import settings

    return settings.Wishes(
        preset=args.preset,
        config=args.config,
        env=args.env,
        device=args.device,
        steps=args.steps,
        seed=args.seed,
        multimodal=args.multimodal,
        settings=tuple(args.settings),
    )
