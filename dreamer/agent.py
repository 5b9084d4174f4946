"""Acting: the recurrent carry of a batch of environments and one policy step."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dreamer.modalities.presence import withhold
from dreamer.nn.distributions import OneHotActions
from dreamer.nn.noise import Noise
from dreamer.types import ActionSpec, EnvError, LatentState, Policy, Rows
from dreamer.world_model.model import MultimodalWorldModel


class Agent:
    """World model and policy as something that answers rows with actions.

    Args:
        model, policy: Shared with the trainer, so that acting always uses the newest weights.
        num_envs: Rows per step.
        noise: Source of posterior and action noise.
        stream: Name of the noise stream; agents with different names draw independently.
        choice: `sample` from the policy, or take its `mode`.
        withheld: Modalities that it must do without.

    Raises:
        ConfigError: The model has no such modality.
    """

    def __init__(
        self,
        model: MultimodalWorldModel,
        policy: Policy,
        num_envs: int,
        noise: Noise,
        *,
        stream: str,
        choice: Literal["sample", "mode"] = "sample",
        withheld: Collection[str] = (),
    ) -> None:
        self.model, self.policy = model, policy
        self.num_envs, self.noise, self.stream, self.choice = num_envs, noise, stream, choice
        self.state = model.rssm.initial(num_envs)
        self.prev_action = self.state.deter.new_zeros(num_envs, model.spec.action.dim)
        self.carry = policy.initial(num_envs)
        self.allowed = withhold(model.encoders.keys(), withheld, self.prev_action)

    @torch.no_grad()
    def act(self, rows: Rows, step: int) -> np.ndarray:
        """Answer one row per environment.

        Args:
            rows: Observation keys and flags, (num_envs, *).
            step: Number of the step since the start, addresses the noise.

        Returns:
            (num_envs, A) float32, zero on `is_last` rows.

        Raises:
            EnvError: The rows lack what the model observes.
        """
        device, lacking = self.prev_action.device, self.model.spec.obs.keys() - rows.keys()
        if lacking:
            allowed = f"all of {list(self.model.spec.obs)}, which the agent observes"
            raise EnvError(f"rows: found no {', '.join(sorted(lacking))}; allowed: {allowed}")
        obs = {key: torch.from_numpy(rows[key]).to(device) for key in self.model.spec.obs}
        is_first = torch.from_numpy(rows["is_first"]).to(device)
        groups = self.model.rssm.size.groups
        noise = self.noise.uniform(f"{self.stream}/latent", step, (self.num_envs, groups))
        self.state = self.model.observe_step(
            obs, self.state, self.prev_action, is_first, noise, self.allowed
        )
        action = self._choose(self.model.feat(self.state), is_first, step)
        self.prev_action = action * (~torch.from_numpy(rows["is_last"]).to(device)).unsqueeze(-1)
        return self.prev_action.cpu().numpy()

    def latents(self) -> dict[str, np.ndarray]:
        """Packed latents of the last step for the buffer."""
        packed = self.model.rssm.pack(self.state)
        return {key: value.cpu().numpy() for key, value in packed.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The carry of world model and policy."""
        policy = {f"policy/{i}": tensor for i, tensor in enumerate(self.carry)}
        return policy | {
            "deter": self.state.deter,
            "stoch": self.state.stoch.contiguous(),
            "prev_action": self.prev_action,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the carry."""
        device = self.prev_action.device
        # The memory stays class-major, as a step would have left it.
        stoch = state["stoch"].to(device).transpose(-1, -2).contiguous().transpose(-1, -2)
        self.state = LatentState(state["deter"].to(device), stoch)
        self.prev_action = state["prev_action"].to(device)
        held = [state[f"policy/{i}"].to(device) for i in range(len(self.carry))]
        self.carry = type(self.carry)(*held)

    def _choose(self, feat: Tensor, is_first: Tensor, step: int) -> Tensor:
        if self.choice == "mode":
            action, self.carry = self.policy.mode(feat, self.carry, is_first)
            return action
        noise = self.policy.draw(self.noise, f"{self.stream}/action", step, (self.num_envs,))
        acted = self.policy.act(feat, self.carry, is_first, noise)
        self.carry = acted.carry
        return acted.action


def random_action(spec: ActionSpec, num_envs: int, noise: Noise, step: int) -> np.ndarray:
    """(num_envs, A) float32: uniform choices as one-hots, or uniform numbers in [-1, 1]."""
    if spec.kind == "continuous":
        draw = noise.uniform("random", step, (num_envs, spec.dim))
        return (2.0 * draw - 1.0).cpu().numpy()
    draw = noise.uniform("random", step, (num_envs, len(spec.sizes)))
    uniform = OneHotActions(draw.new_zeros(num_envs, spec.dim), spec.sizes, unimix=0.0)
    return uniform.sample(draw).cpu().numpy()
