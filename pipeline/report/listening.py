"""Who listens to whom: attention between the modalities over the steps of an episode."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dreamer.modalities.fusion import AttentionFusion, concatenate
from dreamer.modalities.presence import sensed
from dreamer.world_model.model import MultimodalWorldModel
from pipeline.report.canvas import COLOURS, INK, picture, placard
from pipeline.report.recording import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS_AT_ONCE = 64  # of an episode
PANEL = 1.25  # inches


class Listening(NamedTuple):
    """Attention between m modalities on the T rows of an episode.

    Attributes:
        senses: Their names. tokens: How many each has.
        shares: (T, m, m): of what modality i hears on a row, the share that it hears of j.
        effect: (m,): how much is added to the code of each, relative to the code.
    """

    senses: tuple[str, ...]
    tokens: tuple[int, ...]
    shares: np.ndarray
    effect: np.ndarray


def attention_picture(path_png: Path, model: MultimodalWorldModel, recording: Recording) -> None:
    """Draw for each modality how its attention is divided between all, step by step.

    Args:
        path_png: Where to; a picture that says why if nothing attends. model: That recorded.
        recording: The episode.
    """
    if model.fusion is None:
        names = " and ".join(model.encoders)
        why = (
            "world_model.fusion is concat" if len(model.encoders) > 1 else f"there is only {names}"
        )
        placard(path_png, f"no attention between modalities: {why}")
        return
    heard = listen(model, model.fusion, recording)
    with picture(path_png, 11.0, 1.3 + PANEL * len(heard.senses)) as figure:
        grid: Any = figure.subplots(len(heard.senses), 1, sharex=True)
        figure.suptitle("Attention between modalities: who listens to whom, on each step")
        for index, axes in enumerate(grid):
            _panel(axes, heard, index)
        grid[-1].set_xlabel("steps; dashed: the borders if all tokens were heard alike")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", title="listens to")


@torch.no_grad()
def listen(model: MultimodalWorldModel, fusion: AttentionFusion, recording: Recording) -> Listening:
    """Have a model attend to the rows of an episode once more and watch it."""
    device = next(model.parameters()).device
    tokens = tuple(sense.tokens for sense in fusion.senses.values())
    shares, added, plain = [], [], []
    for start in range(0, len(recording), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        obs = {key: torch.from_numpy(recording.obs[key][rows]).to(device) for key in model.spec.obs}
        parts = {name: encoder(obs) for name, encoder in model.encoders.items()}
        present = sensed(model.flags_by_modality, obs, None)
        shares.append(shares_of(fusion.weights(parts, present), tokens))
        plain.append(concatenate(parts, present))
        added.append(fusion(parts, present) - plain[-1])
    return Listening(
        tuple(fusion.senses),
        tokens,
        torch.cat(shares).cpu().numpy(),
        relative(torch.cat(added), torch.cat(plain), fusion).cpu().numpy(),
    )


def shares_of(weights: Tensor, tokens: tuple[int, ...]) -> Tensor:
    """Attention of tokens -> of modalities: means over layers, heads and listening tokens, sums
    over those listened to.

    Args:
        weights: (..., layers, heads, n, n), rows sum to one. tokens: Of each modality, n in all.

    Returns:
        (..., m, m), rows sum to one.
    """
    count = torch.tensor(tokens, device=weights.device)
    owner = torch.repeat_interleave(torch.arange(len(tokens), device=weights.device), count)
    member = functional.one_hot(owner, len(tokens)).to(weights.dtype)  # -> (n, m)
    return (member / count).T @ weights.mean((-4, -3)) @ member


def relative(added: Tensor, plain: Tensor, fusion: AttentionFusion) -> Tensor:
    """(m,): size of what is added to the codes of each modality, over the size of its codes.

    Args:
        added, plain: (T, sum of all widths).
    """
    widths = [sense.tokens * sense.width for sense in fusion.senses.values()]
    pairs = zip(added.split(widths, -1), plain.split(widths, -1), strict=True)
    return torch.stack([more.norm() / code.norm().clamp_min(1e-6) for more, code in pairs])


def _panel(axes: Axes, heard: Listening, index: int) -> None:
    """What one modality hears, stacked."""
    shares = heard.shares[:, index]
    edges = np.arange(len(shares) + 1) - 0.5
    below = np.zeros(len(shares))
    for each, colour, share in zip(heard.senses, cycle(COLOURS), shares.T, strict=False):
        axes.stairs(below + share, edges, baseline=below, fill=True, color=colour, lw=0, label=each)
        below = below + share
    alike = np.cumsum(heard.tokens)[:-1] / sum(heard.tokens)
    axes.hlines(alike, edges[0], edges[-1], color="white", lw=1.0, ls="--")
    axes.set(ylim=(0, 1), xlim=(edges[0], edges[-1]), yticks=[0, 0.5, 1])
    axes.set_yticklabels(["0", "50 %", "100 %"])
    axes.grid(visible=False)
    axes.set_title(_title(heard, index), loc="left", color=INK, fontsize="small")


def _title(heard: Listening, index: int) -> str:
    """Means over the episode in words."""
    means = zip(heard.senses, heard.shares[:, index].mean(0), strict=True)
    listened = ", ".join(f"{name} {100 * share:.0f} %" for name, share in means)
    change = f"what it hears changes its code by {100 * heard.effect[index]:.0f} %"
    return f"{heard.senses[index]} listens to {listened}; {change}"
