"""Shared vocabulary: specs, batches, latent states, imagined rollouts, errors and the protocols.

Legend of shapes, used everywhere:
    B  sequences in a batch          T  steps of a sequence
    N  imagined rollouts (B * T)     H  imagined steps
    D  width of `deter`              S, C  groups and classes of `stoch`
    E  width of `embed`              F  width of `feat` (D + S * C)
    A  width of an action vector (concatenated one-hots, or one real number per dimension)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from torch import Tensor

Losses = dict[str, Tensor]  # name -> (B, T), unreduced
Metrics = dict[str, Tensor]  # `group/name` -> scalar, detached, still on the device
Rate = float | Tensor  # learning rate of one optimiser group
PRESENT = "present/"  # and a key: the key of its flag
SILENCE = 128  # of uint8 waveforms

Rows = dict[str, np.ndarray]  # one replay row per environment, every array (num_envs, ...)


class DreamerError(Exception):
    """A mistake or fault the user can act on; the command line prints it as one line."""


class ConfigError(DreamerError):
    """A parameter is unknown, missing, of the wrong type or out of range.

    Args:
        key: Name of the offending parameter, dotted once a loader has added its section.
        found: What was given.
        allowed: What would have been accepted, in words.
    """

    def __init__(self, key: str, found: Any, allowed: str) -> None:  # noqa: ANN401
        super().__init__(f"{key}: found {found!r}; allowed: {allowed}")
        self.key, self.found, self.allowed = key, found, allowed


class EnvError(DreamerError):
    """An environment is unknown, has unsupported spaces or broke its own contract."""


class DataError(DreamerError):
    """An episode shard or its manifest is missing or damaged, or a buffer cannot be stored."""


class CheckpointError(DreamerError):
    """A checkpoint or model is missing, damaged or of another shape."""


class DivergedError(DreamerError):
    """A loss or gradient became infinite or NaN."""


def check_range(key: str, value: float, low: float, high: float) -> None:
    """Raise `ConfigError` unless `low <= value <= high` (NaN is refused too)."""
    if not low <= value <= high:
        raise ConfigError(key, value, f"{low:g} to {high:g}")


@dataclass(frozen=True, kw_only=True)
class ObsSpec:
    """One observation key as rows carry it.

    Attributes:
        shape: Shape of one observation; never empty, () becomes (1,).
        dtype: numpy dtype name: `uint8`, `float32`, or `int32` for other integers.
        kind: `image` is (height, width, channels) uint8; `categorical` holds integers below
            `classes`; `grid` is (height, width, layers) of integers below those of `layers`;
            `text` is (bytes,) UTF-8, zeros after its end; `audio` is (samples,), as float32 in
            [-1, 1] or as uint8 around 128; `flag` says of another key, in one uint8, whether it was
            there; `vector` is any other array of numbers. Another word is the name of a modality
            that is not built in.
        classes: Number of classes of a categorical key, otherwise 0.
        rate: Samples of an audio key per second, 0 if unknown or of another kind.
        layers: Number of classes of each layer of a grid, otherwise ().
        module: Module that enters a modality which is not built in when it is imported; "" leaves
            that to whoever builds the model.
    """

    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32", "int32"]
    kind: str
    classes: int = 0
    rate: int = 0
    layers: tuple[int, ...] = ()
    module: str = field(default="", compare=False)

    @property
    def words(self) -> str:
        """Shape and what else tells it from others, for errors."""
        more = {" of {} classes": self.classes, " at {} Hz": self.rate, " of {}": self.layers}
        told = "".join(text.format(x) for text, x in more.items() if x)
        dtype = "" if self.dtype == "float32" else f" {self.dtype}"
        return "x".join(map(str, self.shape)) + dtype + told


@dataclass(frozen=True, kw_only=True)
class ActionSpec:
    """The action vector that agents emit.

    Attributes:
        kind: `discrete` is one or several concatenated one-hots, `continuous` real numbers in which
            [-1, 1] covers the environment's box, `code` (of managers, never of environments) equal
            choices as class-major one-hots.
        sizes: Classes per choice, or `(dim,)` for continuous actions.
    """

    kind: Literal["discrete", "continuous", "code"]
    sizes: tuple[int, ...]

    @property
    def dim(self) -> int:
        """Width A of the action vector."""
        return sum(self.sizes)

    @property
    def noise_dim(self) -> int:
        """Width K of the noise that samples one action: one uniform per choice, or A normals."""
        return self.dim if self.kind == "continuous" else len(self.sizes)


class EnvSpec(NamedTuple):
    """What an agent must know of an environment: observation keys (sorted) and the action
    vector.
    """

    obs: dict[str, ObsSpec]
    action: ActionSpec

    @property
    def words(self) -> str:
        """Observations and actions in a few words, for errors."""
        seen = ", ".join(f"{key} {obs.words}" for key, obs in self.obs.items())
        sizes = "+".join(map(str, self.action.sizes))
        return f"observations {seen} and {sizes} {self.action.kind} actions"

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold, for manifests and saved agents."""
        obs = {key: asdict(spec) for key, spec in self.obs.items()}
        return {"obs": obs, "action": asdict(self.action)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> EnvSpec:
        """Inverse of `to_json`; keys come back sorted."""
        obs = {}
        for key, spec in sorted(raw["obs"].items()):
            # Whatever was written before there were grids has no layers.
            tuples = {"shape": tuple(spec["shape"]), "layers": tuple(spec.get("layers", ()))}
            obs[key] = ObsSpec(**spec | tuples)
        action = raw["action"]
        return cls(obs, ActionSpec(kind=action["kind"], sizes=tuple(action["sizes"])))


class LatentState(NamedTuple):
    """RSSM state: `deter` (..., D) and one-hot `stoch` (..., S, C)."""

    deter: Tensor
    stoch: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Replayed sequences on the training device.

    Attributes:
        obs: key -> (B, T, *), original dtypes.
        action: (B, T, A) taken after seeing the observation; zero on `is_last` rows.
        prev_action: (B, T, A) the action that led to the row.
        reward: (B, T) received on arriving at the observation.
        is_first: (B, T) bool.
        is_last: (B, T) bool, terminated or truncated.
        is_terminal: (B, T) bool, terminated only.
        state: Latent of the row before the sequence, (B, D) and (B, S, C).
    """

    obs: Mapping[str, Tensor]
    action: Tensor
    prev_action: Tensor
    reward: Tensor
    is_first: Tensor
    is_last: Tensor
    is_terminal: Tensor
    state: LatentState


class SizeLike(Protocol):
    """Widths that encoders and decoders read; `dreamer.world_model.rssm.Size` has them."""

    @property
    def deter(self) -> int:
        """D, the width of `deter`."""

    @property
    def depth(self) -> int:
        """Base channels of convolutions."""

    @property
    def units(self) -> int:
        """Width of MLPs."""


class Encoder(Protocol):
    """Module that encodes the keys of one modality.

    Attributes:
        out_dim: Width of the code. tokens: Equal parts of it, one after the other, that attention
            between modalities takes apart: positions of an image, moments of a sound.
    """

    out_dim: int
    tokens: int

    def __call__(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Key -> (..., *shape) to (..., out_dim)."""


class Decoder(Protocol):
    """Module that reconstructs the keys of one modality."""

    def loss(self, feat: Tensor, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features (..., F) -> key -> (...) unreduced loss."""

    def decode(self, feat: Tensor) -> dict[str, Tensor]:
        """Features (..., F) -> key -> (..., *shape) in the units of the observation."""


class Imagined(NamedTuple):
    """One batch of imagined rollouts, time first: index 0 is the replayed posterior, and
    `reward[t]`, `cont[t]` are predicted at state t.

    Attributes:
        feat: (H + 1, N, F), no gradient.
        action: (H, N, A) taken at states 0 .. H - 1, no gradient.
        log_prob, entropy: (H, N) of the acting policy; with its gradient if the caller enabled it.
        reward, cont: (H + 1, N), no gradient.
        carries: What the policy held after acting at states 0 .. H - 1.
    """

    feat: Tensor
    action: Tensor
    log_prob: Tensor
    entropy: Tensor
    reward: Tensor
    cont: Tensor
    carries: tuple[Any, ...] = ()


class Replayed(NamedTuple):
    """One posterior scan over replayed sequences, time first and without gradient.

    Attributes:
        embed: (T, B, E). feat: (T, B, F).
        action: (T, B, A) taken after seeing the row. is_first: (T, B) bool.
    """

    embed: Tensor
    feat: Tensor
    action: Tensor
    is_first: Tensor


class Acted(NamedTuple):
    """What a policy did: action (N, A) without gradient, log_prob and entropy (N,), next carry."""

    action: Tensor
    log_prob: Tensor
    entropy: Tensor
    carry: Any


class NoiseSource(Protocol):
    """What policies ask of `dreamer.nn.noise.Noise`."""

    def uniform(self, stream: str, index: int, shape: tuple[int, ...]) -> Tensor:
        """Float32 in [0, 1)."""

    def action(self, spec: ActionSpec, stream: str, index: int, lead: tuple[int, ...]) -> Tensor:
        """(*lead, K) noise that samples actions."""


class Policy(Protocol):
    """Anything that can act on features: the flat actor, and the hierarchy with its carry."""

    def initial(self, batch: int) -> Any:  # noqa: ANN401  (each policy has a carry of its own)
        """Carry of `batch` fresh episodes, a tuple of tensors; empty for a flat actor."""

    def draw(self, noise: NoiseSource, stream: str, index: int, lead: tuple[int, ...]) -> Tensor:
        """(*lead, K) noise as `act` wants it."""

    def act(self, feat: Tensor, carry: Any, is_first: Tensor, noise: Tensor) -> Acted:  # noqa: ANN401
        """Sample an action per row.

        Args:
            feat: (N, F). carry: What `initial` or the previous call returned.
            is_first: (N,) bool, resets the carry.
            noise: (N, K) from `draw`.
        """

    def mode(self, feat: Tensor, carry: Any, is_first: Tensor) -> tuple[Tensor, Any]:  # noqa: ANN401
        """Most probable action (N, A) and the next carry."""


class IntrinsicReward(Protocol):
    """Anything that scores imagined rollouts: ICM, Empowerment."""

    def reward(self, rollout: Imagined) -> Tensor:
        """(H, N) reward without gradient."""
