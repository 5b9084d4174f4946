"""Register an agent, let it challenge the champion, and move the alias if the gate lets it pass.

In this order, so that it may die anywhere and be typed again: what can be wrong is looked at, the
version is made, the alias `challenger` moves, both play, `gate.json` is written, `champion` moves.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamer.saved_agent import load_agent
from pipeline.page.gate import agent_digest
from pipeline.page.sources import Source
from pipeline.registry.config import Demands, demands_for
from pipeline.registry.contest import (
    Contest,
    Player,
    champion_of,
    check_same_spaces,
    document,
    hold,
    unplayed,
)
from pipeline.registry.lineage import Tags, lineage_of
from pipeline.registry.store import (
    AGENT,
    ENV,
    ROLLED_BACK,
    Registry,
    default_name,
    open_registry,
)
from pipeline.report.reading import read_json
from pipeline.report.tables import write_json
from pipeline.serving.package import write_model
from pipeline.serving.policy import CPU
from pipeline.stages.session import prepare

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Who shall be promoted.

    Attributes:
        folder: Of the agent. source: The workspace that it lies in, if it does.
        name: Of the registered model; None for the one of its environment.
        again: Whether it may challenge even after it was rolled back.
        demands: Files of parameters in which demands are looked for, see `demands_for`.
        record: Path of `gate.json`. project: Whose registry it is.
    """

    folder: Path
    source: Source | None
    name: str | None
    again: bool
    demands: Sequence[Path]
    record: Path
    project: Path


def promote(candidate: Candidate) -> Generator[str, None, bool]:
    """Do all of it, telling it line by line.

    Returns:
        Whether the agent is the champion now.

    Raises:
        DreamerError: Something about agent, parameters or registry is wrong; nothing has moved, or
            the same command goes on.
    """
    digest, env = agent_digest(candidate.folder), load_agent(candidate.folder, CPU).env.id
    demands = demands_for(env, candidate.demands)
    device = prepare(demands.params)
    agent = load_agent(candidate.folder, device)
    yield f"demands    {_told(demands)}"
    with open_registry(candidate.project, candidate.name or default_name(env)) as registry:
        registry.check_env(env)
        champion = champion_of(registry, device)
        if champion is not None and champion.digest == digest:
            yield from _already(candidate, registry, demands, champion)
            return True
        if champion is not None:
            check_same_spaces(registry.name, agent, champion)
        run, version = yield from _registered(candidate, registry, digest, env)
        challenger = Player(agent, digest, str(version.version))
        registry.challenge(version)
        if ROLLED_BACK in version.tags and not candidate.again:
            yield from _barred(candidate, registry, demands, challenger)
            return False
        contest = hold(challenger, champion, demands)
        past = registry.before(registry.champion())
        yield from _decided(candidate, registry, contest, demands, past)
        registry.tag(version, _gate_tags(contest))
        registry.record(run, _metrics(contest), candidate.record)
        if contest.ruling.passed:
            registry.crown(version)
        yield from _verdict(contest, registry.name)
        return contest.ruling.passed


def _told(demands: Demands) -> str:
    gate, how = demands.gate, demands.playing
    return (
        f"{demands.path}: mean return {gate.floor:.6g} or more, {gate.confidence:.6g} interval of "
        f"challenger minus champion above {0.0 - gate.tolerance:.6g}; {how.episodes} episodes, "
        f"seed {gate.seed}"
    )


def _registered(
    candidate: Candidate, registry: Registry, digest: str, env: str
) -> Generator[str, None, tuple[Run, ModelVersion]]:
    """Find the version of the agent, or make it."""
    found = lineage_of(candidate.folder, candidate.source)
    parent = registry.known_run(found.pipeline) if found.pipeline else None
    key = hashlib.sha256(f"{registry.name} {digest}".encode()).hexdigest()[:32]
    run = registry.run(f"promote-{key}", "promote", parent.info.run_id if parent else None)
    version = registry.version_of(digest)
    if version is not None:
        yield f"registered already: version {version.version} of {registry.name}"
        return run, version
    training = registry.known_run(found.training) if found.training else None
    tags = {AGENT: digest, ENV: env} | found.tags | _run_tags(training, parent)
    with tempfile.TemporaryDirectory() as scratch:
        # MLflow misses types that it would take for a schema, and puts filters of its own first.
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            write_model(candidate.folder, Path(scratch) / "model")
        version = registry.register(Path(scratch) / "model", run.info.run_id, tags)
    yield f"registered version {version.version} of {registry.name}"
    if found.note:
        yield f"note       {found.note}"
    return run, version


def _run_tags(training: Run | None, pipeline: Run | None) -> Tags:
    """Ids of the runs that made the agent, and the commit of its training."""
    tags: Tags = {} if pipeline is None else {"pipeline_run_id": pipeline.info.run_id}
    if training is not None:
        tags["train_run_id"] = training.info.run_id
        known = training.data.tags
        tags |= {key: known[key] for key in ("git_commit", "git_dirty") if key in known}
    return tags


def _decided(
    candidate: Candidate,
    registry: Registry,
    contest: Contest,
    demands: Demands,
    past: Sequence[str],
) -> Iterator[str]:
    """Write down what came of the contest, and tell it."""
    champion = contest.sides["champion"]
    before = past[-1] if past else None
    if contest.ruling.passed:
        before = None if champion is None else champion["version"]
    write_json(candidate.record, document(contest, demands, registry.name, before))
    for name, side in contest.sides.items():
        if side is not None:
            figures = side["figures"]
            yield (
                f"{name:10} version {side['version']}: {figures['episode/return']:.6g} "
                f"({figures['episode/return_ci_low']:.6g} to "
                f"{figures['episode/return_ci_high']:.6g})"
            )
    yield from (f"because    {reason}" for reason in contest.ruling.reasons)
    yield f"record     {candidate.record}"


def _verdict(contest: Contest, model: str) -> Iterator[str]:
    challenger, champion = (contest.sides[name] for name in ("challenger", "champion"))
    assert challenger is not None, "somebody played"
    if contest.ruling.passed:
        after = f", after version {champion['version']}" if champion else ""
        yield f"verdict    passed: version {challenger['version']} is the champion{after}"
        yield f"use it     models:/{model}@champion"
    else:
        stays = f"version {champion['version']} stays champion" if champion else "no champion yet"
        yield f"verdict    refused: {stays}"


def _already(
    candidate: Candidate, registry: Registry, demands: Demands, champion: Player
) -> Iterator[str]:
    """Nothing moves, and what the gate said of this very version stays."""
    reason = f"version {champion.version} of {registry.name} is this very agent"
    past = registry.before(registry.champion())
    written = read_json(candidate.record)
    same = {"version": champion.version, "agent": champion.digest}.items()
    if written.get("model") != registry.name or not same <= written.get("challenger", {}).items():
        told = unplayed("champion", reason, champion, demands, registry.name, past)
        write_json(candidate.record, told)
    yield f"record     {candidate.record}"
    yield f"verdict    champion already: {reason}; nothing moves"


def _barred(
    candidate: Candidate, registry: Registry, demands: Demands, challenger: Player
) -> Iterator[str]:
    """An agent that somebody took back does not return by itself."""
    reason = f"version {challenger.version} was rolled back; `dreamer promote --again` lets it try"
    past = registry.before(registry.champion())
    told = unplayed("refused", reason, challenger, demands, registry.name, past)
    write_json(candidate.record, told)
    yield f"record     {candidate.record}"
    yield f"verdict    refused: {reason}"


def _gate_tags(contest: Contest) -> Tags:
    champion, ruling = contest.sides["champion"], contest.ruling
    against = {} if champion is None else {"gate.champion": str(champion["version"])}
    return {"gate": ruling.verdict, "gate.reasons": "; ".join(ruling.reasons)} | against


def _metrics(contest: Contest) -> Mapping[str, float]:
    challenger, gap = contest.sides["challenger"], contest.ruling.difference
    figures: dict[str, Any] = {} if challenger is None else dict(challenger["figures"])
    gaps = {} if gap is None else gap._asdict()
    return figures | {f"gate/difference_{name}": value for name, value in gaps.items()}
