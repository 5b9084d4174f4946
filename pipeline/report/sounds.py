"""Sounds of a dream as spectrograms: which tones there were when, and what the model made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from dreamer.modalities.audio import as_wave
from dreamer.modalities.spectrum import Spectrum
from dreamer.types import ObsSpec
from pipeline.report.canvas import FAINT
from pipeline.report.dream import Dream

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

ROWS = ("real", "reconstructed", "imagined")
ROW_HEIGHT = 1.15  # inches
MARGINS = 2  # frames
QUIETEST = 0.5  # loudness that the colours cover at least; of silence too


class Spectrogram(NamedTuple):
    """The sounds of W steps, one after the other.

    Attributes:
        loudness: (bins, W * frames): log(1 + 100 amplitude). top: Frequency of the last bin, in Hz,
            or in cycles per sample where the rate is not known.
    """

    loudness: np.ndarray
    top: float


def spectrogram(waves: np.ndarray, spec: ObsSpec) -> Spectrogram:
    """Take (W, samples) of an audio key apart into tones, whatever the model makes of sounds."""
    spectrum = Spectrum(spec.shape[0])
    loudness = spectrum.loudness(as_wave(torch.from_numpy(waves)))
    if spectrum.frames > MARGINS:  # half of the first and last window is before and after the sound
        loudness = loudness[:, 1:-1]
    return Spectrogram(loudness.flatten(0, 1).T.numpy(), (spec.rate or 1) / 2)


def sound_height(window: Dream, key: str, spec: ObsSpec) -> float:
    """Inches."""
    del window, key, spec
    return 1.0 + len(ROWS) * ROW_HEIGHT


def sound_rows(figure: SubFigure, key: str, spec: ObsSpec, window: Dream) -> None:
    """Draw spectrograms of the real, the reconstructed and one imagined episode, below each other.

    The sound of a step fills the place of the step.
    """
    heard = window.truth[key], window.reconstructed[key], window.imagined[key][0]
    panels = [spectrogram(waves, spec) for waves in heard]
    loudest = max(QUIETEST, *(float(each.loudness.max()) for each in panels))
    grid: Any = figure.subplots(len(ROWS), 1, sharex=True)
    grey = "; grey: nothing observed" if window.missing(key).any() else ""
    figure.suptitle(f"{key}: {_length(spec)} in each step, as tones; one sampled future{grey}")
    unit = "Hz" if spec.rate else "cycles a sample"
    for axes, name, each in zip(grid, ROWS, panels, strict=True):
        half = each.top / (len(each.loudness) - 1) / 2  # a bin is around its frequency
        extent = (-0.5, window.steps - 0.5, -half, each.top + half)
        style = {"origin": "lower", "aspect": "auto", "cmap": "magma", "interpolation": "nearest"}
        shown = axes.imshow(each.loudness, extent=extent, vmin=0.0, vmax=loudest, **style)
        axes.axvline(window.context - 0.5, color="white", lw=1.5, ls=":")
        if name == ROWS[0]:
            _grey_out(axes, window.missing(key))
        axes.set(ylabel=f"{name}\n{unit}", ylim=(0.0, each.top))
        axes.grid(visible=False)
    grid[-1].set_xlabel("steps; dotted: what the model heard ends here, and imagination begins")
    scale = figure.colorbar(shown, ax=list(grid), pad=0.01, aspect=30)
    scale.set_label("loudness: log(1 + 100 amplitude)")


def _grey_out(axes: Axes, missing: np.ndarray) -> None:
    """Steps on which there was no sound to hear, not even silence."""
    for step in np.flatnonzero(missing):
        axes.axvspan(step - 0.5, step + 0.5, color=FAINT, lw=0)


def _length(spec: ObsSpec) -> str:
    samples = spec.shape[0]
    return f"{1000 * samples / spec.rate:.3g} ms of sound" if spec.rate else f"{samples} samples"
