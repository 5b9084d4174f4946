"""Whether MuJoCo can draw: it needs EGL, which a machine without graphics libraries may lack."""

from __future__ import annotations

import functools
import os
import subprocess
import sys


@functools.cache
def can_draw() -> bool:
    """Ask the graphics library itself, so that a fault of ours cannot pass as its absence."""
    code = "from mujoco.egl import GLContext; GLContext(8, 8)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"MUJOCO_GL": "egl"},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
