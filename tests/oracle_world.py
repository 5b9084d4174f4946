"""A gridworld of rooms as a perfect world model: what planning learns here, it owes to no error of
a learned model.

It answers like `MultimodalWorldModel` as far as imagination asks: `deter` are smooth place codes,
`stoch` is the cell as a one-hot.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch

from dreamer.behavior.hierarchy import HierarchicalPPO
from dreamer.nn.noise import Noise
from dreamer.nn.optim import LaProp
from dreamer.types import ActionSpec
from dreamer.world_model.imagination import imagine

FOUR_ROOMS = """
#############
#     #     #
#     #     #
#           #
#     #     #
#     #     #
## ####     #
#     ### ###
#     #     #
#     #     #
#           #
#     #    G#
#############
"""
MOVES = [(-1, 0), (1, 0), (0, -1), (0, 1)]


def rooms(text=FOUR_ROOMS, width=2.0):
    """The world of a map: place codes of a width in cells, moves that walls stop."""
    rows = text.strip().splitlines()
    cells = [(r, c) for r, row in enumerate(rows) for c, mark in enumerate(row) if mark in " G"]
    index = {cell: i for i, cell in enumerate(cells)}
    goal = next(index[cell] for cell in cells if rows[cell[0]][cell[1]] == "G")
    after = [[index.get((r + i, c + j), index[r, c]) for i, j in MOVES] for r, c in cells]
    place = torch.tensor(cells, dtype=torch.float32)
    far = (place[:, None] - place[None]).square().sum(-1)
    return OracleWorld(torch.tensor(after), torch.exp(-far / (2.0 * width**2)), goal)


def ring(count=12):
    """Stay, or go either way round; every cell has a code that no other resembles."""
    cell = torch.arange(count)
    after = torch.stack([cell, (cell + 1) % count, (cell - 1) % count], -1)
    return OracleWorld(after, torch.eye(count), None)


class OracleWorld:
    """Deterministic moves, reward 1 on arriving at the goal, where episodes end.

    Args:
        after: (cells, actions) next cell. deter: (cells, cells) codes. goal: Cell, or None.
        discount: Part of `cont`.
    """

    def __init__(self, after, deter, goal, discount=0.99):
        self.next, self.deter, self.discount = after.clone(), deter, discount
        self.count = len(after)
        self.goal = -1 if goal is None else goal
        if goal is not None:
            self.next[goal] = goal
        self.actions = ActionSpec(kind="discrete", sizes=(after.shape[1],))
        self.rssm = SimpleNamespace(imaginer=self._imaginer)

    @property
    def feat_dim(self):
        return 2 * self.count

    def feat(self, cell):
        """(N,) cells -> (N, F)."""
        return torch.cat([self.deter[cell], torch.eye(self.count)[cell]], -1)

    def cell(self, feat):
        """(..., F) -> (...) cells."""
        return feat[..., self.count :].argmax(-1)

    def _imaginer(self, rows):
        del rows

        def step(deter, stoch, action, noise, out):
            del deter, noise
            out.copy_(self.feat(self.next[stoch.argmax(-1), action.argmax(-1)]))

        return step

    def reward(self, feat):
        arrived = (self.cell(feat) == self.goal).float()
        return SimpleNamespace(mean=lambda: arrived)

    def cont(self, feat):
        going = (self.cell(feat) != self.goal).float() * self.discount
        return SimpleNamespace(mean=lambda: going)

    def distance(self):
        """(cells,) steps to the goal, by breadth-first search."""
        steps = torch.full((self.count,), 10_000)
        steps[self.goal] = 0
        while True:
            shorter = torch.minimum(steps, 1 + steps[self.next].amin(-1))
            if torch.equal(shorter, steps):
                return steps
            steps = shorter

    def optimum(self):
        """Mean discounted return over all starts but the goal."""
        steps = self.distance().float()
        return float((self.discount ** (steps[steps > 0] - 1.0)).mean())


class OracleTraining:
    """Learn to plan in an oracle world, with the goal autoencoder where there is one."""

    def __init__(self, world, config, *, intrinsic=None, horizon, units=64, seed=0, starts=256):
        self.world, self.horizon, self.starts = world, horizon, starts
        self.behavior = HierarchicalPPO(
            world.feat_dim, world.count, units, world.actions, config, intrinsic or {}, {}, seed
        )
        self.optimizer = LaProp(self.behavior.groups())
        self.noise = Noise(seed, torch.device("cpu"))
        self.updates = 0

    def update(self):
        """Imagine from random cells, learn from it."""
        index, world, behavior = self.updates, self.world, self.behavior
        draw = self.noise.uniform("cells", index, (self.starts,))
        feat = world.feat((draw * world.count).long())
        policy = behavior.imagined_policy()
        lead = (self.horizon, self.starts)
        noise = policy.draw(self.noise, "act", index, lead)
        with torch.no_grad():
            carry = policy.initial(self.starts)
            deter, stoch = feat.split(world.count, -1)
            latent = torch.zeros(*lead, 1)
            rollout = imagine(world, policy, carry, deter, stoch, latent, noise)
        rewards = {"extrinsic": rollout.reward[1:]}
        lessons, metrics = behavior.evaluate(rollout, rewards)
        rates = behavior.rates()
        metrics |= behavior.ppo_update(lessons, self.optimizer, rates, self.noise, index)
        if behavior.goals is not None:
            code = self.noise.uniform("goals", index, (self.starts, behavior.goals.groups))
            loss, more = behavior.goals.loss(deter, code)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step({"goals": rates["goals"]})
            metrics |= more
        behavior.update_slow()
        self.updates += 1
        return metrics

    @torch.no_grad()
    def score(self, limit=200, seed=1):
        """Mean discounted return over all starts, acting as in an environment."""
        world, policy, noise = self.world, self.behavior.policy, Noise(seed, torch.device("cpu"))
        cell = torch.tensor([c for c in range(world.count) if c != world.goal])
        carry, first = policy.initial(len(cell)), torch.ones(len(cell), dtype=torch.bool)
        total, factor = torch.zeros(len(cell)), torch.ones(len(cell))
        for step in range(limit):
            draw = policy.draw(noise, "act", step, (len(cell),))
            acted = policy.act(world.feat(cell), carry, first, draw)
            carry, first = acted.carry, torch.zeros_like(first)
            cell = world.next[cell, acted.action.argmax(-1)]
            total += factor * (cell == world.goal).float()
            factor = factor * world.discount * (cell != world.goal).float()
        return float(total.mean())
