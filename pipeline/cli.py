"""The `dreamer` command: what can be typed, and how mistakes are answered.

Commands live in `pipeline.commands` and are imported when they run, so that `--help` is instant.
A mistake of the user is one line on stderr and status 2; anything unexpected keeps its traceback.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pipeline.commands.settings import Wishes as Parameters

MISTAKE, INTERRUPTED, CLOSED_PIPE = 2, 130, 141
# What a disk or its owner may refuse; other operating-system errors are ours and keep a traceback.
REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
}

EXAMPLES = """\
examples:
  dreamer train                                  CartPole-v1, parameters of params.yaml
  dreamer train --env Pendulum-v1 --steps 24000  another environment
  dreamer play outputs/CartPole-v1-seed0         record an episode of what was learned
  dreamer use list                               tasks with tuned parameters
"""
TRAIN_EXAMPLES = """\
Collects, pretrains, trains and evaluates in one folder. The same command again skips what is done
and goes on with what was interrupted. What is said later wins: params.yaml, --preset, --config, the
options with names of their own, --set.

examples:
  dreamer train --preset pendulum --seed 3
  dreamer train --env dmc_walker_walk --steps 100000 --device cuda
  dreamer train --set policy.clip_ratio=0.1 --set 'env.active_modalities=[image]'
  dreamer train --config flat.json --checkpoint outputs/mine
"""
TUNE_EXAMPLES = """\
Tries the points of `tune.space` in params.yaml, or of the lists in a JSON file. The same command
again goes on with what is left, and may be typed in several terminals at once: docs/tuning.md.

examples:
  dreamer tune --workers 2
  dreamer tune --config space.json --search tpe --trials 40
  dreamer tune --set 'tune.space={policy.clip_ratio: [0.1, 0.2]}' --storage sqlite:///tune.db
"""
EVALUATE_EXAMPLES = """\
examples:
  dreamer evaluate outputs/CartPole-v1-seed0
  dreamer evaluate models/agent/last --episodes 20 --policy sample
"""
PLAY_EXAMPLES = """\
examples:
  dreamer play models/agent/best --episodes 3 --out clips
  dreamer play outputs/CartPole-v1-seed0 --policy sample --seed 7
"""
INSPECT_EXAMPLES = """\
examples:
  dreamer inspect outputs/CartPole-v1-seed0
  dreamer inspect models/world_model
"""
USE_EXAMPLES = """\
DVC sees nothing but params.yaml, so the preset is written into it; comments stay.

examples:
  dreamer use list
  dreamer use pendulum && dvc repro
"""

REPORT_EXAMPLES = """\
Writes reports/report.html, which needs nothing beside it, and reports/model_card.md.

examples:
  dreamer report                                 of the pipeline that dvc repro ran here
  dreamer report --base main                     with the parameters that differ from main's
  dreamer report outputs/a --beside outputs/b --beside outputs/c
"""


class _Parser(argparse.ArgumentParser):
    """Answers a mistake with one line; argparse would print its usage first."""

    def error(self, message: str) -> NoReturn:
        where = self.prog.partition(" ")[2]
        prefix = f"{where}: " if where else ""
        self.exit(MISTAKE, f"dreamer: error: {prefix}{message}; see `{self.prog} --help`\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words after `dreamer`; those of this process unless given.

    Returns:
        Exit status: 0, 2 after a mistake of the user, 130 after Ctrl-C.

    Raises:
        SystemExit: From argparse, and from a stage that a signal stopped (128 + signal).
    """
    args = _parse(argv)
    if "" not in sys.path:  # `--env module:Id` may lie in the current folder, as for `python -m`
        sys.path.append("")
    try:
        for line in _lines(args):
            print(line, flush=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `dreamer inspect ... | head`
        # Python flushes stdout once more when it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except Exception as error:
        mistake = _explained(error)
        if mistake is None:
            raise
        print(mistake, file=sys.stderr)
        return MISTAKE
    return 0


def _lines(args: argparse.Namespace) -> Iterable[str]:
    """Run the command that was typed; it yields what to print."""
    from pipeline.progress import configure_logging

    level = getattr(args, "log_level", None) or os.environ.get("DREAMER_LOG_LEVEL") or "info"
    configure_logging(level)
    match args.command:
        case "train":
            return _train(args)
        case "tune":
            return _tune(args)
        case "evaluate" | "play":
            return _evaluate_or_play(args)
        case "inspect":
            from pipeline.commands import inspect

            return inspect.run(args.folder)
        case "summary":
            from pipeline.commands import summary

            return summary.run(Path())
        case "report":
            from pipeline.commands import report

            beside = tuple(args.beside)
            wishes = report.Wishes(folder=args.folder, beside=beside, base=args.base, out=args.out)
            return report.run(wishes, Path.cwd())
        case "views":
            from pipeline.commands import project

            return project.views(Path.cwd())
    from pipeline.commands import project

    return project.use(args.name) if args.command == "use" else project.sync_runs(Path.cwd())


def _train(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import train

    return train.run(_parameters(args), args.checkpoint)


def _parameters(args: argparse.Namespace) -> Parameters:
    """What `_parameter_arguments` read."""
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


def _tune(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.tune import command

    wishes = command.Wishes(
        parameters=_parameters(args),
        study=args.study,
        storage=args.storage,
        search=args.search,
        trials=args.trials,
        workers=args.workers,
        backend=args.backend,
    )
    return command.apply(wishes) if args.apply else command.run(wishes)


def _evaluate_or_play(args: argparse.Namespace) -> Iterable[str]:
    from pipeline.commands import agents

    wishes = agents.Wishes(
        episodes=args.episodes,
        env=args.env,
        seed=args.seed,
        policy=args.policy,
        withhold=tuple(args.withhold.split(",")) if args.withhold else (),
    )
    if args.command == "evaluate":
        return agents.evaluate(args.folder, wishes)
    return agents.play(args.folder, wishes, args.out)


def _explained(error: Exception) -> str | None:
    """One line for a mistake that the user can act on, None for anything else."""
    from dreamer.types import DreamerError
    from pipeline.progress import ERASE, on_terminal

    if isinstance(error, DreamerError):
        reason = str(error)
    elif isinstance(error, OSError) and error.errno in REFUSALS:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    else:
        return None
    line = f"dreamer: error: {' '.join(reason.split())}"
    return (ERASE if on_terminal(sys.stderr) else "") + line


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser, commands = _parsers()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        command = commands[args.command]
        known = re.findall(r"--[a-z-]+", command.format_help())
        near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        command.error(f"unknown argument {unknown[0]!r}{hint}")
    return args


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """The parser, and those of its commands by name."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="dreamer",
        description="Train, evaluate and look at DreamerV3 world-model agents.",
        epilog=EXAMPLES,
        formatter_class=shape,
        allow_abbrev=False,
    )
    commands: dict[str, _Parser] = {}
    choose = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary, epilog in (
        ("train", "train an agent, or go on training it", TRAIN_EXAMPLES),
        ("tune", "search better parameters, or go on searching", TUNE_EXAMPLES),
        ("evaluate", "play episodes with an agent and print its figures", EVALUATE_EXAMPLES),
        ("play", "record episodes of an agent as GIF", PLAY_EXAMPLES),
        ("inspect", "show what is in a checkpoint", INSPECT_EXAMPLES),
        ("report", "write one page about a training, and its model card", REPORT_EXAMPLES),
        ("use", "write a preset into params.yaml, or list them", USE_EXAMPLES),
        ("views", "keep views of the runs in MLflow, and say where they open", None),
        ("sync", "upload tracking data that an outage left behind", None),
        ("summary", "say what `make repro` learned and where to look", None),
    ):
        commands[name] = choose.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=epilog,
            formatter_class=shape,
            allow_abbrev=False,
        )
    _train_arguments(commands["train"])
    _tune_arguments(commands["tune"])
    _agent_arguments(commands["evaluate"])
    commands["evaluate"].add_argument(
        "--env", metavar="ID", help="another environment with the same spaces"
    )
    commands["evaluate"].add_argument(
        "--withhold", metavar="M,M", help="modalities that the agent must do without"
    )
    _agent_arguments(commands["play"])
    commands["play"].set_defaults(env=None, withhold=None)
    commands["play"].add_argument(
        "--out", metavar="DIR", type=Path, default=Path("outputs/play"), help="default: %(default)s"
    )
    _report_arguments(commands["report"])
    commands["inspect"].add_argument("folder", metavar="CHECKPOINT", type=Path, help=FOLDER)
    commands["use"].add_argument("name", metavar="NAME", help="a preset, or `list`")
    return parser, commands


FOLDER = "folder of a checkpoint, or one that `dreamer train` wrote (then its best agent)"


def _train_arguments(parser: _Parser) -> None:
    _parameter_arguments(parser)
    parser.add_argument(
        "--checkpoint",
        metavar="DIR",
        type=Path,
        help="folder to go on from and to write; default: outputs/<env>-seed<seed>",
    )


def _tune_arguments(parser: _Parser) -> None:
    _parameter_arguments(parser)
    add = parser.add_argument
    add("--study", metavar="NAME", help="default: named after environment and parameters")
    add("--storage", metavar="S", help="a journal file or an Optuna URL; default: a journal")
    add("--search", choices=("grid", "tpe"), help="default: tune.search of params.yaml")
    add("--trials", metavar="N", type=whole, help="in all, earlier ones included")
    add("--workers", metavar="W", type=whole, default=1, help="processes; default: %(default)s")
    add(
        "--backend",
        choices=("inprocess", "dvc"),
        default="inprocess",
        help="who trains; dvc: each training is a DVC experiment; default: %(default)s",
    )
    add(
        "--apply",
        action="store_true",
        help="train the best again on other seeds and write the winner into params.yaml",
    )


def _parameter_arguments(parser: _Parser) -> None:
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


def _agent_arguments(parser: _Parser) -> None:
    add = parser.add_argument
    add("folder", metavar="CHECKPOINT", type=Path, help=FOLDER)
    add("--episodes", metavar="N", type=whole, help="how many")
    add("--seed", metavar="S", type=whole, help="of episodes and action noise")
    add("--policy", choices=("sample", "mode"), help="sample actions, or take the likeliest")


def _report_arguments(parser: _Parser) -> None:
    add = parser.add_argument
    add(
        "folder",
        metavar="TRAINING",
        type=Path,
        nargs="?",
        default=Path(),
        help="a folder that `dreamer train` made; default: the repository of the pipeline, here",
    )
    add(
        "--beside",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="another training, e.g. of another seed, to draw beside it; may be repeated",
    )
    add("--base", metavar="REV", default="HEAD", help="whose params.yaml holds the defaults")
    add("--out", metavar="DIR", type=Path, help="folder to write to; default: reports of TRAINING")


def whole(text: str) -> int:
    """Read a whole number; `mlflow run` may write 3 as 3.0, and people 1e5."""
    try:
        number = float(text)
        if number.is_integer() and abs(number) < 2**53:
            return int(number)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a whole number")


if __name__ == "__main__":
    sys.exit(main())
