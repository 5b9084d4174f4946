"""Planning in a perfect world model: what fails here is the planner's fault."""

from __future__ import annotations

import pytest
import torch
from builders import policy_config
from oracle_world import OracleTraining, ring, rooms

from dreamer.behavior.actor_critic import WorkerWeights
from dreamer.behavior.goals import goal_reward
from dreamer.behavior.learner import ActorCritic
from dreamer.behavior.level import Level, Rollout
from dreamer.behavior.ppo import trajectory_weight
from dreamer.nn.noise import Noise
from dreamer.nn.optim import LaProp
from dreamer.types import Acted
from dreamer.world_model.imagination import imagine

LEARNING = {
    "actor_lr": 1e-3,
    "critic_lr": 1e-3,
    "slow_rate": 0.1,
    "epochs": 3,
    "minibatches": 4,
    "target_kl": 0.05,
    "entropy_scale": 3e-3,
}


def hierarchical(**changes):
    worker = WorkerWeights(goal=0.3, extrinsic=1.0, icm=0.0, empowerment=0.0)
    values = {
        "hierarchy": True,
        "goal_every": 4,
        "goal_groups": 8,
        "goal_classes": 8,
        "goal_lr": 1e-3,
        "manager_entropy_scale": 3e-3,
        "manager_target_kl": 0.1,
        "worker": worker,
    }
    return policy_config(**LEARNING | values | changes)


def test_the_optimum_of_four_rooms_is_the_shortest_path():
    world = rooms()
    steps = world.distance()
    assert (world.count, int(steps.max())) == (104, 20)
    assert world.optimum() == pytest.approx(0.90773, abs=1e-5)


@pytest.mark.parametrize("hierarchy", [False, True], ids=["flat", "manager and worker"])
def test_four_rooms_are_solved_to_95_percent_of_the_optimum(hierarchy):
    world = rooms()
    training = OracleTraining(world, hierarchical(hierarchy=hierarchy), horizon=16)
    for _ in range(4):  # 400 updates at most
        for _ in range(50):
            training.update()
        if training.score() > 0.95 * world.optimum():
            return
    pytest.fail(f"{training.score() / world.optimum():.3f} of the optimum")


class Pursuer:
    """A worker that pursues goals given to its rows from outside."""

    def __init__(self, actor, goal, sure):
        self.actor, self.goal, self.sure = actor, goal, sure

    def act(self, feat, carry, is_first, noise) -> Acted:
        acted = self.actor.act(torch.cat([feat, self.goal], -1), carry, is_first, noise)
        if self.sure:
            return acted._replace(
                action=self.actor.mode(torch.cat([feat, self.goal], -1), (), None)[0]
            )
        return acted


def test_a_worker_alone_reaches_goals_within_reach_and_no_others():
    world, every, count = ring(), 4, 240
    config = policy_config(**LEARNING)
    level = Level(
        name="worker", metrics="policy", entropy_scale=1e-2, target_kl=0.05, weights={"goal": 1.0}
    )
    width = world.feat_dim + world.count
    worker = ActorCritic(width, 64, world.actions, config, level, seed=0)
    optimizer, noise = LaProp(worker.groups()), Noise(0, torch.device("cpu"))

    @torch.no_grad()
    def live(update, cell, goal, sure=False):
        lead = (every, len(cell))
        rollout = imagine(
            world,
            Pursuer(worker.actor, goal, sure),
            (),
            *world.feat(cell).split(world.count, -1),
            torch.zeros(*lead, 1),
            noise.action(world.actions, "act", update, lead),
        )
        reward = goal_reward(goal.expand(every, -1, -1), rollout.feat[1:, :, : world.count])
        return rollout, reward

    for update in range(300):
        cell = (noise.uniform("cell", update, (count,)) * world.count).long()
        goal = world.deter[(noise.uniform("goal", update, (count,)) * world.count).long()]
        rollout, reward = live(update, cell, goal)
        ready = worker.streams.prepare({"goal": reward})
        lived = Rollout(
            torch.cat([rollout.feat, goal.expand(every + 1, -1, -1)], -1),
            rollout.action,
            rollout.log_prob,
            rollout.entropy,
            torch.cat([torch.zeros_like(ready[:1]), ready]),
            rollout.cont,
            trajectory_weight(rollout.cont),
        )
        targets = worker.evaluate(lived)
        worker.ppo_update(lived, targets, optimizer, worker.rates(), noise, update)
        worker.critic.update_slow(0.1)

    start, end = (x.flatten() for x in torch.meshgrid(*[torch.arange(12)] * 2, indexing="ij"))
    _, reward = live(-1, start, world.deter[end], sure=True)
    near = torch.minimum((start - end) % 12, (end - start) % 12) <= every
    assert reward[-1][near].mean() > 0.95
    assert reward[-1][~near].max() < 0.95
