"""Frames of a recorded episode, as its environment draws itself: a strip, an animation."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from dreamer.types import DataError
from pipeline.report.canvas import INK, picture, show_image
from pipeline.report.dream import spread_out
from pipeline.report.recording import Recording
from pipeline.report.tables import write_bytes

FRAMES, FRAMES_ACROSS = 12, 6


def frame_strip(path_png: Path, recording: Recording) -> None:
    """Draw about twelve frames of an episode, evenly spread, the first and the last among them.

    Raises:
        DataError: The recording has no frames.
    """
    if recording.frames is None:
        raise DataError("frames: found a recording without; allowed: of an environment that draws")
    moments = spread_out(0, len(recording) - 1, FRAMES)
    across = min(FRAMES_ACROSS, len(moments))
    down = -(-len(moments) // across)
    height, width = recording.frames.shape[1:3]
    side = 11.0 / across
    with picture(path_png, 11.0, 0.6 + down * (side * height / width + 0.2)) as figure:
        grid = figure.subplots(down, across, squeeze=False).ravel()
        ended = "" if recording.is_last[-1] else ", still going on"
        figure.suptitle(f"Return {recording.ret:,.6g} after {recording.length} steps{ended}")
        for axes, moment in zip(grid, moments, strict=False):
            axes.set_title(f"step {moment}", color=INK, fontsize="small")
            show_image(axes, recording.frames[moment])
        for axes in grid[len(moments) :]:
            axes.remove()


def write_gif(path: Path, frames: np.ndarray, fps: int) -> None:
    """Write frames (T, height, width, 3) uint8 as an endless animation.

    Args:
        fps: Frames per second, 1 to 50; GIF counts in hundredths of a second.
    """
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    content = io.BytesIO()
    images[0].save(
        content,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=10 * round(100 / fps),
        loop=0,
    )
    write_bytes(path, content.getvalue())
