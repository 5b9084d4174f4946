"""Presence: which modalities count in a step. A sensor may be silent, or be taken away.

Three things take a modality away: an observation that came without it, where that is allowed (its
flag in the row says so), modality dropout in training, and an evaluation that withholds it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from dreamer.types import PRESENT, ConfigError, ObsSpec

Present = Mapping[str, Tensor]  # modality -> (...) bool


def flags_of(groups: Mapping[str, Mapping[str, ObsSpec]], obs: Collection[str]) -> dict[str, str]:
    """Key -> its flag, of the keys that may be missing, by `groups` of modality -> keys."""
    keys = [key for group in groups.values() for key in group]
    return {key: PRESENT + key for key in keys if PRESENT + key in obs}


def sensed(
    groups: Mapping[str, Collection[str]], obs: Mapping[str, Tensor], allowed: Present | None
) -> Present | None:
    """Modalities that are there and allowed; None if nothing could be missing.

    Args:
        groups: Modality -> flags of those of its keys that may be missing; it is there if all are.
        obs: Key -> (..., *), with the flags (..., 1).
        allowed: Modality -> (...) whether it may be used; None: all.
    """
    if not any(groups.values()):
        return allowed
    lead = next(obs[flag].shape[:-1] for flags in groups.values() for flag in flags)
    marks = {}
    for name, flags in groups.items():
        there = [obs[flag].squeeze(-1).bool() for flag in flags]
        if allowed is not None:
            there.append(allowed[name].expand(lead))
        everywhere = torch.ones(lead, dtype=torch.bool, device=next(iter(obs.values())).device)
        marks[name] = torch.stack([everywhere, *there]).all(0)
    return marks


def drop_one(names: Sequence[str], share: float, noise: Tensor) -> Present:
    """Modality dropout: of a `share` of the sequences one modality, each as likely, is taken away.

    Args:
        names: Modalities. share: Between 0 and 1. noise: (2, B) uniform.

    Returns:
        Modality -> (B,) bool.
    """
    struck, which = noise[0] < share, (noise[1] * len(names)).long()
    return {name: ~(struck & (which == index)) for index, name in enumerate(names)}


def withhold(names: Collection[str], taken: Collection[str], like: Tensor) -> Present | None:
    """Modality -> (B,) bool for `like` (B, ...): all but those taken; None if none is.

    Raises:
        ConfigError: One that is taken is not among the names.
    """
    for name in taken:
        if name not in names:
            raise ConfigError("--withhold", name, f"modalities of the agent: {sorted(names)}")
    if not taken:
        return None
    mark = torch.ones(len(like), dtype=torch.bool, device=like.device)
    return {name: ~mark if name in taken else mark for name in names}
