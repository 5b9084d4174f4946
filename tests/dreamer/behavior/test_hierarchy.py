"""Two levels from one rollout: who is paid what and when, by loops over time; the flat agent."""

from __future__ import annotations

import pytest
import torch
from builders import CPU, generator, num_trainable, policy_config, snapshot

from dreamer.behavior.actor_critic import Actor, WorkerWeights
from dreamer.behavior.goals import goal_reward
from dreamer.behavior.hierarchy import HierarchicalPPO
from dreamer.nn.math import NUM_BINS
from dreamer.nn.noise import Noise
from dreamer.nn.optim import LaProp
from dreamer.types import ActionSpec, Imagined

F, D, N, K, M = 9, 6, 5, 3, 2
H = M * K
LAMBDA = 0.95
SPECS = {
    "discrete": ActionSpec(kind="discrete", sizes=(3,)),
    "continuous": ActionSpec(kind="continuous", sizes=(2,)),
}
NOISE = Noise(0, CPU)
WAGES = WorkerWeights(goal=1.0, extrinsic=0.5, icm=0.25, empowerment=0.0)
MIX = {"icm": 0.1, "empowerment": 0.0}


def behavior_of(
    spec="discrete", *, hierarchy=True, intrinsic=MIX, paid=None, opinions=True, **changes
):
    """Policies that look at what they see, and critics that do not expect zero."""
    config = policy_config(hierarchy=hierarchy, goal_every=K, **{"worker": WAGES} | changes)
    behavior = HierarchicalPPO(F, D, 16, SPECS[spec], config, intrinsic, paid or {}, 0)
    for number, level in enumerate(behavior.levels()):
        torch.nn.init.normal_(level.actor.out.weight, std=0.3, generator=generator(number))
        for head in (level.critic.head, level.critic.slow) if opinions else ():
            torch.nn.init.normal_(head.out.weight, std=0.3, generator=generator(number))
            # The outermost bins stand for hundreds of millions.
            narrow = -0.5 * (torch.arange(NUM_BINS) - NUM_BINS // 2).abs()
            head.out.bias.data[: head.task * NUM_BINS] = narrow.repeat(head.task)
    return behavior


@torch.no_grad()
def live(behavior, seed=0, rows=N):
    """A rollout through random states under the policy, and random rewards."""
    source, policy = generator(seed), behavior.imagined_policy()
    feat = torch.randn(H + 1, rows, F, generator=source)
    noise = policy.draw(NOISE, "act", seed, (H, rows))
    never, carry, acted = torch.zeros(rows, dtype=torch.bool), policy.initial(rows), []
    for step in range(H):
        acted.append(policy.act(feat[step], carry, never, noise[step]))
        carry = acted[-1].carry
    imagined = Imagined(
        feat,
        *(torch.stack([getattr(each, name) for each in acted]) for name in Imagined._fields[1:4]),
        reward=torch.randn(H + 1, rows, generator=source),
        cont=torch.rand(H + 1, rows, generator=source),
        carries=tuple(each.carry for each in acted),
    )
    rewards = {"extrinsic": imagined.reward[1:]}
    rewards |= {name: torch.rand(H, rows, generator=source) for name in ("icm", "empowerment")}
    return imagined, rewards


def codes_over_time(imagined):
    """(H, N, C * L): the code that was pursued while acting at each step, by a loop over time."""
    codes = []
    for step in range(H):
        if step % K == 0:
            code = imagined.carries[step].code
        codes.append(code)
    return torch.stack(codes)


def goals_over_time(behavior, imagined):
    """(H, N, D): the goal that was active while acting at each step."""
    return behavior.goals.decode(codes_over_time(imagined)).detach()


def lessons_of(behavior, imagined, rewards):
    """Of manager and worker, with rewards as they are: statistics of running scales stay empty."""
    behavior.eval()
    return behavior.evaluate(imagined, rewards)[0]


# What the worker is paid -------------------------------------------------------------------------


def test_the_goal_that_is_pursued_pays_up_to_the_end_of_its_segment():
    behavior = behavior_of()
    imagined, rewards = live(behavior)
    _, (_, rollout, _) = lessons_of(behavior, imagined, rewards)
    active, deter = goals_over_time(behavior, imagined), imagined.feat[..., :D]
    stream = list(behavior.worker.streams.weights).index("goal")
    assert rollout.reward.shape == (K + 1, 3, M * N)  # K rewards for every segment
    for step in range(H):
        segment, k = divmod(step, K)
        rows = slice(segment * N, (segment + 1) * N)
        got = rollout.reward[k + 1, stream, rows]
        torch.testing.assert_close(got, goal_reward(active[step], deter[step + 1]))
        if step + 1 < H:  # of the goal that the next step pursues, as in Director's code
            quirk = goal_reward(active[step + 1], deter[step + 1])
            assert torch.allclose(got, quirk) == (k + 1 < K)


def test_other_rewards_of_the_worker_are_those_of_its_steps():
    behavior = behavior_of()
    imagined, rewards = live(behavior)
    _, (_, rollout, _) = lessons_of(behavior, imagined, rewards)
    stream = list(behavior.worker.streams.weights).index("extrinsic")
    for step in range(H):
        segment, k = divmod(step, K)
        rows = slice(segment * N, (segment + 1) * N)
        assert torch.equal(rollout.reward[k + 1, stream, rows], rewards["extrinsic"][step])
        assert torch.equal(rollout.action[k, rows], imagined.action[step])


def test_a_segment_ends_in_its_last_state_under_its_own_goal():
    behavior = behavior_of()
    imagined, rewards = live(behavior)
    _, (level, rollout, targets) = lessons_of(behavior, imagined, rewards)
    active = codes_over_time(imagined)
    for segment in range(M):
        rows = slice(segment * N, (segment + 1) * N)
        for k in range(K + 1):
            step = segment * K + k
            own = active[segment * K]
            want = torch.cat([imagined.feat[step], own], -1)
            torch.testing.assert_close(rollout.feat[k, rows], want)
            assert torch.equal(rollout.cont[k, rows], imagined.cont[step])
        # The last step's return: its reward, and what is expected after it under the same goal.
        stream = list(level.streams.weights).index("goal")
        end = torch.cat([imagined.feat[(segment + 1) * K], active[segment * K]], -1)
        with torch.no_grad():
            value = level.critic(end).mean()[..., stream]
        last = rollout.reward[K, stream, rows] + imagined.cont[(segment + 1) * K] * value
        torch.testing.assert_close(targets.ret[K - 1, stream, rows], last)


def test_what_a_goal_pays_ends_with_its_segment():
    behavior = behavior_of()
    imagined, rewards = live(behavior)
    _, (level, rollout, targets) = lessons_of(behavior, imagined, rewards)
    stream = list(level.streams.weights).index("goal")
    with torch.no_grad():
        value = level.critic(rollout.feat).mean()[..., stream]
    later = value[K]
    for k in reversed(range(K)):
        mixed = (1 - LAMBDA) * value[k + 1] + LAMBDA * later
        later = rollout.reward[k + 1, stream] + rollout.cont[k + 1] * mixed
        torch.testing.assert_close(targets.ret[k, stream], later)


@pytest.mark.parametrize("name", ["extrinsic", "icm"])
def test_what_else_the_worker_earns_goes_on_under_the_goals_that_follow(name):
    behavior = behavior_of()
    imagined, rewards = live(behavior)
    _, (level, rollout, targets) = lessons_of(behavior, imagined, rewards)
    stream = list(level.streams.weights).index(name)
    active = codes_over_time(imagined)
    goals = torch.cat([active, active[-1:]])  # nobody chose another one for the very last state
    with torch.no_grad():
        value = level.critic(torch.cat([imagined.feat, goals], -1)).mean()[..., stream]
    later = value[H]
    for step in reversed(range(H)):
        segment, k = divmod(step, K)
        rows = slice(segment * N, (segment + 1) * N)
        mixed = (1 - LAMBDA) * value[step + 1] + LAMBDA * later
        later = rollout.reward[k + 1, stream, rows] + imagined.cont[step + 1] * mixed
        torch.testing.assert_close(targets.ret[k, stream, rows], later)


# What the manager is paid ------------------------------------------------------------------------


def test_the_managers_returns_by_brute_force():
    behavior = behavior_of(intrinsic={})
    imagined, rewards = live(behavior)
    (level, rollout, targets), _ = lessons_of(behavior, imagined, rewards)
    assert rollout.reward.shape == (M + 1, 1, N)
    with torch.no_grad():
        value = level.critic(imagined.feat[::K]).mean()[..., 0]
    later = value[M]
    for segment in reversed(range(M)):
        paid, chance = torch.zeros(N), torch.ones(N)
        for k in range(K):
            step = segment * K + k
            paid += chance * rewards["extrinsic"][step]
            chance = chance * imagined.cont[step + 1]
        later = paid + chance * ((1 - LAMBDA) * value[segment + 1] + LAMBDA * later)
        torch.testing.assert_close(targets.ret[segment, 0], later)
    torch.testing.assert_close(targets.value[:, 0], value[:-1])


def test_the_manager_answers_for_its_choices_where_it_made_them():
    behavior = behavior_of()
    imagined, rewards = live(behavior)
    (level, rollout, _), _ = lessons_of(behavior, imagined, rewards)
    assert list(level.streams.weights) == ["extrinsic", "icm"]
    for segment in range(M):
        step = segment * K
        assert torch.equal(rollout.feat[segment], imagined.feat[step])
        assert torch.equal(rollout.action[segment], imagined.carries[step].code)
        assert torch.equal(rollout.action[segment], imagined.carries[step + K - 1].code)
    assert torch.equal(rollout.feat[M], imagined.feat[H])


@pytest.mark.parametrize("number", [0, 1])
def test_steps_weigh_what_the_chance_of_getting_there_is(number):
    behavior = behavior_of()
    imagined, rewards = live(behavior)
    _, rollout, targets = lessons_of(behavior, imagined, rewards)[number]
    chance, found = torch.ones(N), {}
    for step in range(H):
        chance = chance * imagined.cont[step]
        segment, k = divmod(step, K)
        if number == 1:
            found[step] = rollout.weight[k, segment * N : (segment + 1) * N]
        elif k == 0:
            found[step] = rollout.weight[segment]
        if step in found:
            torch.testing.assert_close(found[step], chance)
    assert len(found) == (M if number == 0 else H)
    assert torch.equal(targets.weight, rollout.weight)


# How they learn ----------------------------------------------------------------------------------


class Recorder:
    """Stands in for the optimiser: keeps an actor's gradients and moves nothing."""

    def __init__(self, level):
        self.level, self.grads = level, []

    def zero_grad(self):
        self.level.zero_grad()

    def step(self, rates, gate=None):
        if self.level.actor_group in rates:
            self.grads.append([p.grad.clone() for p in self.level.actor.parameters()])


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("number", [0, 1])
def test_first_ppo_gradient_of_each_level_is_that_of_reinforce(number, spec):
    behavior = behavior_of(spec, epochs=1, minibatches=1, manager_entropy_scale=0.01)
    imagined, rewards = live(behavior)
    level, rollout, targets = lessons_of(behavior, imagined, rewards)[number]
    recorder = Recorder(level)
    metrics = level.ppo_update(rollout, targets, recorder, level.rates(), NOISE, 0)
    group = ("manager", "policy")[number]
    assert metrics[f"{group}/approx_kl"].item() == pytest.approx(0.0, abs=1e-6)
    assert metrics[f"{group}/clip_fraction"] == 0
    dist = level.actor(rollout.feat[:-1])
    gain = dist.log_prob(rollout.action) * targets.adv
    gain = gain + (0.01, 3e-4)[number] * dist.entropy()
    loss = -(targets.weight * gain).sum() / targets.weight.sum()
    want = torch.autograd.grad(loss, level.actor.parameters())
    for got, expected in zip(recorder.grads[0], want, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_levels_recall_how_probable_their_choices_were(spec):
    """The ratio of the first minibatch is one."""
    behavior = behavior_of(spec)
    for level, rollout, _ in lessons_of(behavior, *live(behavior)):
        with torch.no_grad():
            dist = level.actor(rollout.feat[:-1])
        torch.testing.assert_close(dist.log_prob(rollout.action), rollout.log_prob)
        torch.testing.assert_close(dist.entropy(), rollout.entropy)


@pytest.mark.parametrize("number", [0, 1])
def test_a_level_learns_alone(number):
    behavior = behavior_of()
    before = snapshot(dict(behavior.state_dict()))
    lesson = behavior.evaluate(*live(behavior))[0][number]
    optimizer = LaProp(behavior.groups())
    behavior.ppo_update([lesson], optimizer, behavior.rates(), NOISE, 0)
    moved = {n for n, p in behavior.named_parameters() if not torch.equal(p, before[n])}
    mine = ("top.", "worker.")[number]
    trained = {n for n, p in lesson.level.named_parameters() if p.requires_grad}
    assert moved == {mine + name for name in trained}


def test_minibatches_of_levels_are_shuffled_apart():
    drawn = []

    class Watched(Noise):
        def permutation(self, stream, index, length):
            drawn.append((stream, length))
            return super().permutation(stream, index, length)

    behavior = behavior_of(epochs=2)
    lessons, _ = behavior.evaluate(*live(behavior))
    optimizer = LaProp(behavior.groups())
    behavior.ppo_update(lessons, optimizer, behavior.rates(), Watched(0, CPU), 0)
    manager, worker = [(f"manager/ppo/{e}", M * N) for e in (0, 1)], [("worker/ppo/0", H * N)]
    assert drawn == [*manager, *worker, ("worker/ppo/1", H * N)]


def named(imagined):
    """Whether the first choice of the first code tells the sign of the state's first number."""
    code = imagined.carries[0].code.unflatten(-1, (2, -1))[:, 1, 0]
    return (code == (imagined.feat[0, :, 0] > 0)).float()


def test_a_manager_learns_which_goal_pays():
    rates = {"actor_lr": 3e-3, "critic_lr": 3e-3}
    behavior = behavior_of(intrinsic={}, goal_classes=2, goal_groups=2, opinions=False, **rates)
    optimizer = LaProp(behavior.groups())
    for index in range(40):
        imagined, rewards = live(behavior, index, rows=64)
        imagined = imagined._replace(cont=torch.ones(H + 1, 64))
        rewards = {name: torch.zeros(H, 64) for name in rewards}
        rewards["extrinsic"][K - 1] = named(imagined)  # paid when the segment ends
        lessons, _ = behavior.evaluate(imagined, rewards)
        behavior.ppo_update(lessons, optimizer, behavior.rates(), NOISE, index)
        behavior.update_slow()
    assert named(live(behavior, 1000, rows=400)[0]).mean() > 0.85


# Switched off ------------------------------------------------------------------------------------


def test_without_a_hierarchy_there_is_one_actor_critic():
    flat, both = behavior_of(hierarchy=False, intrinsic={}), behavior_of(intrinsic={})
    assert flat.worker is None
    assert flat.goals is None
    assert flat.goal_policy is None
    assert isinstance(flat.policy, Actor)
    assert flat.imagined_policy() is flat.policy
    assert {name.split(".")[0] for name in flat.state_dict()} == {"top"}
    assert flat.groups().keys() == flat.rates().keys() == {"actor", "critic"}
    levels = {f"{level}/{part}" for level in ("manager", "worker") for part in ("actor", "critic")}
    assert both.groups().keys() == both.rates().keys() == levels | {"goals"}
    assert {name.split(".")[0] for name in both.state_dict()} == {"top", "worker", "goals"}
    # In the top level an action takes the place of a code.
    assert num_trainable(flat) < num_trainable(both.top)
    parts = num_trainable(both.top) + num_trainable(both.worker) + num_trainable(both.goals)
    assert num_trainable(both) == parts


def test_groups_cover_what_is_trained_once():
    behavior = behavior_of()
    held = [id(p) for group in behavior.groups().values() for p in group]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in behavior.parameters() if p.requires_grad}


def test_a_flat_rollout_is_the_imagined_one():
    behavior = behavior_of(hierarchy=False, intrinsic={})
    imagined, rewards = live(behavior)
    ((level, rollout, _),), metrics = behavior.evaluate(imagined, rewards)
    assert level is behavior.top
    for name in ("feat", "action", "log_prob", "entropy", "cont"):
        assert getattr(rollout, name) is getattr(imagined, name)
    assert torch.equal(rollout.reward[1:, 0], imagined.reward[1:])
    assert torch.equal(rollout.weight, imagined.cont[:-1].cumprod(0))
    assert {name.split("/")[1] for name in metrics} == {"extrinsic"}


def test_streams_of_both_levels():
    behavior = behavior_of(intrinsic={"icm": 0.1, "empowerment": 0.2}, paid={})
    assert behavior.top.streams.weights == {"extrinsic": 1.0, "icm": 0.1, "empowerment": 0.2}
    assert behavior.worker.streams.weights == {"goal": 1.0, "extrinsic": 0.5, "icm": 0.25}
    options = behavior_of(intrinsic={}, paid={"empowerment": 0.3})
    assert options.top.streams.weights == {"extrinsic": 1.0}
    assert options.worker.streams.weights["empowerment"] == 0.3
    # The first critic of the top level is the task's: replayed rewards are its business.
    assert next(iter(behavior.top.streams.weights)) == "extrinsic"


def test_metrics_of_both_levels_have_names_of_their_own():
    behavior = behavior_of()
    imagined, rewards = live(behavior)
    lessons, metrics = behavior.evaluate(imagined, rewards)
    kinds = ("raw", "normalised", "weighted")
    want = {f"reward/{name}/{kind}" for name in ("extrinsic", "icm") for kind in kinds}
    own = ("goal", "extrinsic", "icm")
    want |= {f"worker_reward/{name}/{kind}" for name in own for kind in kinds}
    assert metrics.keys() == want
    learned = behavior.ppo_update(lessons, LaProp(behavior.groups()), behavior.rates(), NOISE, 0)
    assert {name.split("/")[0] for name in learned} == {"manager", "policy"}


def test_loss_scales_of_both_actors():
    assert behavior_of().loss_scales() == {"replay_value": 0.3}
    flat = behavior_of(hierarchy=False, actor="reinforce")
    assert flat.loss_scales() == {"replay_value": 0.3, "actor": 1.0, "critic": 1.0}
    imagined, rewards = live(flat)
    losses, _, _ = flat.reinforce(imagined, rewards)
    assert losses.keys() | {"replay_value"} == flat.loss_scales().keys()
