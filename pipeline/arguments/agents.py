"""`dreamer evaluate`, `play` and `inspect`: what one does with an agent that is there."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.arguments.parser import FOLDER, Parser, add_command, whole

if TYPE_CHECKING:
    from pipeline.arguments.parser import Choose
    from pipeline.commands.agents import Wishes

EVALUATE = """\
examples:
  dreamer evaluate outputs/CartPole-v1-seed0
  dreamer evaluate models/agent/last --episodes 20 --policy sample
"""
PLAY = """\
examples:
  dreamer play models/agent/best --episodes 3 --out clips
  dreamer play outputs/CartPole-v1-seed0 --policy sample --seed 7
"""
INSPECT = """\
examples:
  dreamer inspect outputs/CartPole-v1-seed0
  dreamer inspect models/world_model
"""


def add_evaluate(choose: Choose) -> None:
    """Measure an agent."""
    summary = "play episodes with an agent and print its figures"
    parser = add_command(choose, "evaluate", summary, _evaluate, EVALUATE)
    _add_episodes(parser)
    add = parser.add_argument
    add("--env", metavar="ID", help="another environment with the same spaces")
    add("--withhold", metavar="M,M", help="modalities that the agent must do without")


def add_play(choose: Choose) -> None:
    """Record an agent."""
    parser = add_command(choose, "play", "record episodes of an agent as GIF", _play, PLAY)
    _add_episodes(parser)
    parser.set_defaults(env=None, withhold=None)
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("outputs/play"), help="default: %(default)s"
    )


def add_inspect(choose: Choose) -> None:
    """Look into a checkpoint."""
    parser = add_command(choose, "inspect", "show what is in a checkpoint", _inspect, INSPECT)
    parser.add_argument("folder", metavar="CHECKPOINT", type=Path, help=FOLDER)


def _evaluate(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import agents

    return agents.evaluate(args.folder, _wishes(args))


def _play(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import agents

    return agents.play(args.folder, _wishes(args), args.out)


def _inspect(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import inspect

    return inspect.run(args.folder)


def _add_episodes(parser: Parser) -> None:
    add = parser.add_argument
    add("folder", metavar="CHECKPOINT", type=Path, help=FOLDER)
    add("--episodes", metavar="N", type=whole, help="how many")
    add("--seed", metavar="S", type=whole, help="of episodes and action noise")
    add("--policy", choices=("sample", "mode"), help="sample actions, or take the likeliest")


def _wishes(args: argparse.Namespace) -> Wishes:
    from pipeline.commands import agents

    return agents.Wishes(
        episodes=args.episodes,
        env=args.env,
        seed=args.seed,
        policy=args.policy,
        withhold=tuple(args.withhold.split(",")) if args.withhold else (),
    )
