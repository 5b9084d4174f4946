"""Noise as a function of (seed, stream name, index): no hidden generator state to save or restore.

Switching a module off changes no other stream, and an interrupted run draws what it would have
drawn.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from dreamer.types import ActionSpec


def derive_seed(seed: int, stream: str, index: int = 0) -> int:
    """63-bit seed that depends on all three arguments and on nothing else."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Noise:
    """Draws noise tensors on one device.

    Args:
        seed: Seed of the run.
        device: Where tensors are drawn; CPU and CUDA generators give different numbers.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.device = device

    def child(self, name: str) -> int:
        """31-bit seed of something that draws for itself, such as a set of environments."""
        return derive_seed(self.seed, name) >> 32

    def uniform(self, stream: str, index: int, shape: tuple[int, ...]) -> Tensor:
        """Float32 in [0, 1)."""
        return torch.rand(shape, generator=self._generator(stream, index), device=self.device)

    def normal(self, stream: str, index: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal float32."""
        return torch.randn(shape, generator=self._generator(stream, index), device=self.device)

    def permutation(self, stream: str, index: int, length: int) -> Tensor:
        """(length,) int64 random order."""
        generator = self._generator(stream, index)
        return torch.randperm(length, generator=generator, device=self.device)

    def numpy(self, stream: str, index: int) -> np.random.Generator:
        """A fresh numpy generator for host-side draws (replay sampling, random actions)."""
        return np.random.Generator(np.random.Philox(key=derive_seed(self.seed, stream, index)))

    def _generator(self, stream: str, index: int) -> torch.Generator:
        generator = torch.Generator(device=self.device)
        return generator.manual_seed(derive_seed(self.seed, stream, index))

    def action(self, spec: ActionSpec, stream: str, index: int, lead: tuple[int, ...]) -> Tensor:
        """(*lead, K) noise that samples actions: uniform per choice, or normal per dimension."""
        draw = self.normal if spec.kind == "continuous" else self.uniform
        return draw(stream, index, (*lead, spec.noise_dim))
