"""Counting and timing of what an update does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """Floating-point operations of the matrix products and convolutions that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Run the operation and count it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.total += formula(*args, **kwargs, out_val=out)
        return out


class Stopwatch:
    """Time spent in named parts, without that of the parts which they call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def wrap(self, owner: Any, method: str, part: str) -> None:  # noqa: ANN401
        """Let calls of `owner.method` count for `part`."""
        call = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            begin = time.perf_counter()
            self._inner.append(0.0)
            result = call(*args, **kwargs)
            spent = time.perf_counter() - begin
            self.seconds[part] = self.seconds.get(part, 0.0) + spent - self._inner.pop()
            self._inner[-1] += spent
            return result

        # Straight into the instance, because a module would refuse a function among its children.
        owner.__dict__[method] = timed


def seconds(call: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin
