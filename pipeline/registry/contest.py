"""Challenger and champion in the same episodes, and what the gate says of it."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dreamer.envs.episode import EpisodeStats
from dreamer.saved_agent import SavedAgent, load_agent
from dreamer.types import CheckpointError, DataError
from pipeline.page.gate import agent_digest
from pipeline.registry.config import Demands
from pipeline.registry.gate import Ruling, judge
from pipeline.registry.store import AGENT, CHAMPION, Registry, RegistryError
from pipeline.report.tables import RESAMPLES
from pipeline.stages.evaluate import play, summary


class Player(NamedTuple):
    """An agent under its digest, and its version once it has one."""

    agent: SavedAgent
    digest: str
    version: str


class Contest(NamedTuple):
    """What both did, and the ruling.

    Attributes:
        ruling: Of the gate. sides: `challenger` and `champion` -> version, digest, figures and
            returns; the champion is None while there is none.
    """

    ruling: Ruling
    sides: dict[str, Mapping[str, Any] | None]


def champion_of(registry: Registry, device: torch.device) -> Player | None:
    """The champion with its agent from the registry, or None while there is none.

    Raises:
        RegistryError: It is not what was registered, or of another version of this program.
    """
    version = registry.champion()
    if version is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        folder = registry.fetch(version, Path(scratch))
        what = f"{registry.name}: version {version.version}, the champion"
        try:
            digest = agent_digest(folder)
            agent = load_agent(folder, device)
        except CheckpointError as error:
            reason = str(error).replace(str(folder), "its agent")
            raise RegistryError(f"{what}, cannot be played: {reason}") from error
    if digest != version.tags.get(AGENT):
        raise RegistryError(f"{what}: its agent is not the one that was registered")
    return Player(agent, digest, str(version.version))


def check_same_spaces(name: str, challenger: SavedAgent, champion: Player) -> None:
    """Refuse agents of which one could not answer the other's requests.

    Raises:
        RegistryError: They see or do other things.
    """
    mine, theirs = challenger.model.spec, champion.agent.model.spec
    if mine != theirs:
        raise RegistryError(
            f"{name}: found a challenger with {mine.words}; allowed: {theirs.words}, as the "
            f"{CHAMPION}, version {champion.version}, or a registered model of its own by --name"
        )


def hold(challenger: Player, champion: Player | None, demands: Demands) -> Contest:
    """Play both in the same episodes.

    Raises:
        EnvError: The environment has other spaces than the agents.
    """
    mine = play(challenger.agent, demands.playing)
    theirs = None if champion is None else play(champion.agent, demands.playing)
    if theirs is not None and _places(mine) != _places(theirs):
        raise DataError("gate: the agents played different episodes")
    ruling = judge(_returns(mine), None if theirs is None else _returns(theirs), demands.gate)
    seed = demands.gate.seed
    sides: dict[str, Mapping[str, Any] | None] = {
        "challenger": _side(challenger, mine, seed),
        "champion": None if champion is None else _side(champion, theirs or [], seed),
    }
    return Contest(ruling, sides)


def document(contest: Contest, demands: Demands, model: str, before: str | None) -> dict[str, Any]:
    """What `gate.json` says.

    Args:
        model: Name of the registered model. before: Version that was champion before the one that
            is champion now.
    """
    ruling = contest.ruling
    gap = None if ruling.difference is None else ruling.difference._asdict()
    return {
        **contest.sides,
        "verdict": ruling.verdict,
        "reasons": list(ruling.reasons),
        "difference": gap,
        "demands": dataclasses.asdict(demands.gate),
        "playing": dataclasses.asdict(demands.playing),
        "resamples": RESAMPLES,
        "model": model,
        "previous_champion": before,
    }


def unplayed(
    verdict: str,
    reason: str,
    player: Player,
    demands: Demands,
    model: str,
    past: Sequence[str],
) -> dict[str, Any]:
    """What `gate.json` says where nobody needed to play.

    Args:
        past: Versions that were champion before the one that is.
    """
    return {
        "challenger": {"version": player.version, "agent": player.digest},
        "champion": None,
        "verdict": verdict,
        "reasons": [reason],
        "difference": None,
        "demands": dataclasses.asdict(demands.gate),
        "model": model,
        "previous_champion": past[-1] if past else None,
    }


def _side(player: Player, episodes: list[EpisodeStats], seed: int) -> dict[str, Any]:
    return {
        "version": player.version,
        "agent": player.digest,
        "figures": summary(episodes, seed),
        "returns": _returns(episodes),
    }


def _returns(episodes: list[EpisodeStats]) -> list[float]:
    return [episode.ret for episode in episodes]


def _places(episodes: list[EpisodeStats]) -> list[tuple[int, int]]:
    return [(episode.env, episode.episode) for episode in episodes]
