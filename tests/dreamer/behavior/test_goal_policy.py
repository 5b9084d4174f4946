"""When goals change, row by row in environments and together in imagination."""

from __future__ import annotations

import pytest
import torch
from builders import CPU, generator

from dreamer.behavior.actor_critic import Actor
from dreamer.behavior.goal_policy import GoalPolicy, ImaginedGoalPolicy
from dreamer.behavior.goals import GoalAutoencoder
from dreamer.nn.noise import Noise
from dreamer.types import ActionSpec

F, D, K, N, STEPS = 9, 5, 3, 4, 11
GROUPS, CLASSES = 6, 4
CODE = ActionSpec(kind="code", sizes=(CLASSES,) * GROUPS)
SPECS = {
    "discrete": ActionSpec(kind="discrete", sizes=(3, 2)),
    "continuous": ActionSpec(kind="continuous", sizes=(2,)),
}
NOISE = Noise(0, CPU)
NEVER = torch.zeros(STEPS, N, dtype=torch.bool)


@pytest.fixture(name="policy", params=SPECS)
def _policy(request):
    manager = Actor(F, 16, CODE, generator(1))
    worker = Actor(F + CODE.dim, 16, SPECS[request.param], generator(2))
    for actor in (manager, worker):  # fresh ones hardly look at anything
        torch.nn.init.normal_(actor.out.weight, generator=generator(3))
    return GoalPolicy(manager, worker, GoalAutoencoder(D, 16, GROUPS, CLASSES, 0), K, D)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def lived(steps=STEPS):
    """feat (steps, N, F)."""
    return torch.randn(steps, N, F, generator=generator(4))


def play(policy, feat, is_first, noise):
    """What was done and held at every step."""
    carry, steps = policy.initial(N), []
    for now, first, draw in zip(feat, is_first, noise, strict=True):
        steps.append(policy.act(now, carry, first, draw))
        carry = steps[-1].carry
    return steps


def starts(*steps_of_rows):
    """(STEPS, N) bool: the steps at which episodes begin, for each row."""
    is_first = NEVER.clone()
    for row, steps in enumerate(steps_of_rows):
        is_first[list(steps), row] = True
    return is_first


def one_row(policy, feat, is_first, noise, row):
    """The codes, goals and chances of one row by a loop over time that counts in plain numbers."""
    since, code, found = 0, None, []
    width = policy.worker.spec.noise_dim
    for step in range(len(feat)):
        now = feat[step, row : row + 1]
        if is_first[step, row]:
            since = 0
        if since % K == 0:
            code = policy.manager(now).sample(noise[step, row : row + 1, width:])
        goal = policy.goals.decode(code)
        dist = policy.worker(torch.cat([now, code], -1))
        found.append((code[0], goal[0], dist.sample(noise[step, row : row + 1, :width])[0]))
        since += 1
    return found


CASES = {
    "together": starts((0,), (0,), (0,), (0,)),
    "apart": starts((0,), (0, 1), (0, 5), (0, 4, 5, 9)),
    "unmarked": NEVER,  # a fresh carry begins a goal of its own
}


@pytest.mark.parametrize("case", CASES)
def test_goals_last_k_steps_and_begin_with_episodes(policy, case):
    feat, is_first = lived(), CASES[case]
    noise = policy.draw(NOISE, "act", 0, (STEPS, N))
    steps = play(policy, feat, is_first, noise)
    for row in range(N):
        for step, want in enumerate(one_row(policy, feat, is_first, noise, row)):
            got = steps[step].carry.code[row], steps[step].carry.goal[row], steps[step].action[row]
            for a, b in zip(got, want, strict=True):
                torch.testing.assert_close(a, b)


def test_goals_change_at_these_steps_and_no_other(policy):
    """With 4096 codes and a manager that looks, every choice here is another goal."""
    feat, is_first = lived(), CASES["apart"]
    steps = play(policy, feat, is_first, policy.draw(NOISE, "act", 0, (STEPS, N)))
    changes = [
        [t for t in range(1, STEPS) if bool((goals[t] != goals[t - 1]).any())]
        for goals in torch.stack([each.carry.goal for each in steps]).unbind(1)
    ]
    assert changes == [[3, 6, 9], [1, 4, 7, 10], [3, 5, 8], [3, 4, 5, 8, 9]]


def test_log_probability_and_entropy_are_the_workers(policy):
    feat = lived()
    steps = play(policy, feat, NEVER, policy.draw(NOISE, "act", 0, (STEPS, N)))
    for now, acted in zip(feat, steps, strict=True):
        dist = policy.worker(torch.cat([now, acted.carry.code], -1))
        assert torch.equal(acted.log_prob, dist.log_prob(acted.action))
        assert torch.equal(acted.entropy, dist.entropy())


def test_rows_do_not_touch(policy):
    feat, is_first = lived(), CASES["apart"]
    noise = policy.draw(NOISE, "act", 0, (STEPS, N))
    one = play(policy, feat, is_first, noise)
    feat[:, 1], noise[:, 1] = feat[:, 1] + 1.0, 0.3
    is_first[:, 1] = ~is_first[:, 1]
    other = play(policy, feat, is_first, noise)
    rest = [0, 2, 3]
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.action[rest], b.action[rest])
        assert all(torch.equal(x[rest], y[rest]) for x, y in zip(a.carry, b.carry, strict=True))
    changed = [not torch.equal(a.action[1], b.action[1]) for a, b in zip(one, other, strict=True)]
    assert any(changed)


def test_imagination_does_the_same_to_the_bit(policy):
    feat, noise = lived(), policy.draw(NOISE, "act", 0, (STEPS, N))
    one = play(policy, feat, NEVER, noise)
    other = play(ImaginedGoalPolicy(policy), feat, NEVER, noise)
    for step, (a, b) in enumerate(zip(one, other, strict=True)):
        assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
        assert torch.equal(a.carry.code, b.carry.code)
        assert torch.equal(a.carry.goal, b.carry.goal)
        dist = policy.manager(feat[step - step % K])
        assert torch.equal(b.carry.log_prob, dist.log_prob(b.carry.code))
        assert torch.equal(b.carry.entropy, dist.entropy())


def test_the_manager_is_asked_at_every_kth_imagined_step_only(policy):
    asked = []
    policy.manager.register_forward_hook(lambda *_: asked.append(None))
    play(ImaginedGoalPolicy(policy), lived(), NEVER, policy.draw(NOISE, "act", 0, (STEPS, N)))
    assert len(asked) == 4  # at 0, 3, 6 and 9


def test_in_imagination_only_the_worker_gets_gradients_from_acting(policy):
    imagined = ImaginedGoalPolicy(policy)
    noise = policy.draw(NOISE, "act", 0, (N,))
    with torch.enable_grad():
        acted = imagined.act(lived()[0], imagined.initial(N), NEVER[0], noise)
        acted.log_prob.sum().backward()
    assert not acted.carry.log_prob.requires_grad
    assert all(p.grad is None for p in policy.manager.parameters())
    assert all(p.grad is None for p in policy.goals.parameters())
    assert any(bool(p.grad.any()) for p in policy.worker.parameters())


def test_the_mode_keeps_the_same_clock(policy):
    feat, is_first, carry = lived(), CASES["apart"], policy.initial(N)
    acting = policy.initial(N)
    noise = policy.draw(NOISE, "act", 0, (STEPS, N))
    held = None
    for step in range(STEPS):
        action, carry = policy.mode(feat[step], carry, is_first[step])
        acting = policy.act(feat[step], acting, is_first[step], noise[step]).carry
        assert torch.equal(carry.clock, acting.clock)
        assert carry.clock.max() < K
        due = is_first[step] | (torch.tensor(step == 0)) if held is None else carry.clock == 1
        fresh = policy.manager(feat[step]).mode()
        held = fresh if held is None else torch.where(due.unsqueeze(-1), fresh, held)
        assert torch.equal(carry.code, held)
        torch.testing.assert_close(carry.goal, policy.goals.decode(held))
        want = policy.worker(torch.cat([feat[step], carry.code], -1)).mode()
        assert torch.equal(action, want)


def test_noise_of_worker_and_manager_are_streams_of_their_own(policy):
    draw = policy.draw(NOISE, "act", 7, (5, N))
    own = policy.worker.spec.noise_dim
    assert draw.shape == (5, N, own + GROUPS)
    assert torch.equal(draw[..., :own], policy.worker.draw(NOISE, "act", 7, (5, N)))
    assert torch.equal(draw[..., own:], NOISE.uniform("act/goal", 7, (5, N, GROUPS)))
    assert torch.equal(draw, ImaginedGoalPolicy(policy).draw(NOISE, "act", 7, (5, N)))


def test_every_step_a_goal_of_its_own():
    manager, worker = Actor(F, 16, CODE, generator(1)), Actor(F + CODE.dim, 16, CODE, generator(2))
    policy = GoalPolicy(manager, worker, GoalAutoencoder(D, 16, GROUPS, CLASSES, 0), 1, D)
    noise = policy.draw(NOISE, "act", 0, (STEPS, N))
    steps, feat = play(policy, lived(), NEVER, noise), lived()
    for step, acted in enumerate(steps):
        want = manager(feat[step]).sample(noise[step, :, GROUPS:])
        assert torch.equal(acted.carry.code, want)
