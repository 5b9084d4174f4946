"""ICM on worlds whose answers are known: chains, noise, actions without effect, episode ends."""

from __future__ import annotations

import math

import pytest
import torch
from builders import generator, small_model, vector_spec
from torch import nn
from torch.nn import functional

from dreamer.intrinsic.icm import BETA, FEATURES, ICM, ICMConfig
from dreamer.nn.layers import MLP, Linear
from dreamer.nn.optim import LaProp
from dreamer.types import ActionSpec, ConfigError, Imagined, LatentState, Replayed

TWO = ActionSpec(kind="discrete", sizes=(2,))
FOUR = ActionSpec(kind="discrete", sizes=(4,))
MULTI = ActionSpec(kind="discrete", sizes=(2, 3))
BOX = ActionSpec(kind="continuous", sizes=(2,))
STATES, NOISE = 10, 8
T, B = 9, 16
LR = 2e-3


def make(spec=TWO, embed=STATES, feat=STATES, seed=0, units=32):
    config = ICMConfig(enabled=True, weight=0.1, lr=LR, head_lr=LR)
    return ICM(embed, feat, units, spec, config, seed)


def one_hot(index, classes):
    return functional.one_hot(index, classes).float()


def rows(embed, action, feat=None, is_first=None):
    first = torch.zeros(embed.shape[:2], dtype=torch.bool) if is_first is None else is_first
    return Replayed(embed, embed if feat is None else feat, action, first)


def random_rows(spec=TWO, steps=T, batch=B, seed=0, embed=STATES, feat=STATES):
    """Random everything, with an episode beginning here and there."""
    source = generator(seed)
    lead = (steps, batch)
    if spec.kind == "continuous":
        action = torch.randn(*lead, spec.dim, generator=source)
    else:
        picks = [(torch.randint(0, n, lead, generator=source), n) for n in spec.sizes]
        action = torch.cat([one_hot(index, n) for index, n in picks], -1)
    return Replayed(
        torch.randn(*lead, embed, generator=source),
        torch.randn(*lead, feat, generator=source),
        action,
        torch.rand(lead, generator=source) < 0.3,
    )


def chain(source, batch, known=STATES, noise=0):
    """A walk on states 0 .. known - 1 between two walls, or short of the transition to `known`."""
    position, states, actions = torch.randint(0, known, (batch,), generator=source), [], []
    for _ in range(T):
        go = torch.randint(0, 2, (batch,), generator=source)
        if known < STATES:
            go = torch.where(position == known - 1, 0, go)
        states.append(position)
        actions.append(go)
        position = (position + 2 * go - 1).clamp(0, STATES - 1)
    embed = one_hot(torch.stack(states), STATES)
    static = torch.randn(T, batch, noise, generator=source)
    return rows(torch.cat([embed, static], -1), one_hot(torch.stack(actions), 2), embed)


def learn(icm, drawn, names=("icm",)):
    """Train once on each B of the drawn sequences; the metrics of every update."""
    optimizer, history = LaProp({"icm": list(icm.parameters())}), []
    for part in zip(*(x.split(B, 1) for x in drawn), strict=True):
        losses, metrics = icm.losses(Replayed(*part))
        optimizer.zero_grad()
        torch.stack([losses[name] for name in names]).sum().backward()
        optimizer.step({"icm": LR})
        history.append({name: value.item() for name, value in metrics.items()})
    return history


def last(history, name, count=20):
    return sum(each[name] for each in history[-count:]) / count


def gradients(loss, module):
    """name -> gradient of a loss by every parameter, None where there is no path."""
    names, params = zip(*module.named_parameters(), strict=True)
    grads = torch.autograd.grad(loss, params, allow_unused=True, retain_graph=True)
    return dict(zip(names, grads, strict=True))


def by_part(grads):
    """Part of the module -> whether any of its parameters has a gradient other than zero."""
    touched: dict[str, bool] = {}
    for name, grad in grads.items():
        part = name.split(".")[0]
        touched[part] = touched.get(part, False) or (grad is not None and bool(grad.any()))
    return touched


# Known answers, by training


def test_a_deterministic_chain_becomes_unsurprising():
    history = learn(make(), chain(generator(), 200 * B))
    assert last(history, "icm/forward_loss") < 0.02 * history[10]["icm/forward_loss"]
    assert last(history, "icm/inverse_accuracy") > 0.99


def sensitivity(icm, embed):
    """Norms of the derivative of phi by the position and by the noise, means over rows."""
    step = 1e-2
    moves = torch.eye(STATES + NOISE) * step
    with torch.no_grad():
        slopes = [(icm.encode(embed + m) - icm.encode(embed - m)) / (2 * step) for m in moves]
    slope = torch.stack(slopes, -1)
    parts = slope[..., :STATES], slope[..., STATES:]
    return [part.flatten(-2).norm(dim=-1).mean().item() for part in parts]


@pytest.mark.parametrize("seed", [0, 1])
def test_features_are_blind_to_uncontrollable_noise(seed):
    source, icm = generator(seed), make(embed=STATES + NOISE, seed=seed)
    history = learn(icm, chain(source, 200 * B, noise=NOISE))
    assert last(history, "icm/inverse_accuracy") > 0.95
    position, noise = sensitivity(icm, chain(source, B, noise=NOISE).embed.flatten(0, 1))
    assert noise < 0.1 * position
    # What is left of the noise is no lasting source of curiosity either.
    assert last(history, "icm/forward_loss") < 0.05 * history[10]["icm/forward_loss"]


def test_a_forward_model_of_observations_pays_for_the_noise():
    source, weights = generator(), generator(1)
    width = STATES + NOISE
    model = nn.Sequential(MLP(width + 2, 32, 2, weights), Linear(32, width, weights))
    optimizer = LaProp({"model": list(model.parameters())})

    def errors(drawn):
        guess = model(torch.cat([drawn.embed[:-1], drawn.action[:-1]], -1))
        return (guess - drawn.embed[1:]).square().flatten(0, 1).mean(0)

    for _ in range(300):
        optimizer.zero_grad()
        errors(chain(source, B, noise=NOISE)).sum().backward()
        optimizer.step({"model": 5e-3})
    with torch.no_grad():
        after = errors(chain(source, 50 * B, noise=NOISE))
    assert after[:STATES].sum() < 0.45  # half of what it is for a model that knows nothing
    assert after[STATES:].mean() > 0.97  # the variance is 1, and the sample's own spread 0.006


def inert(source, model, batch):
    """Four actions that do nothing to the observation, seen by a recurrent model that is told."""
    lead, size = (T, batch), model.rssm.size
    action = one_hot(torch.randint(0, 4, lead, generator=source), 4)
    obs = torch.randn(*lead, 3, generator=source).cumsum(0) * 0.3
    first = torch.zeros(lead, dtype=torch.bool)
    state = LatentState(
        torch.zeros(batch, size.deter), torch.zeros(batch, size.groups, size.classes)
    )
    noise = torch.rand(*lead, size.groups, generator=source)
    with torch.no_grad():
        embed = model.encode({"v0": obs})
        prev_action = torch.cat([torch.zeros(1, batch, 4), action[:-1]])
        seen = model.rssm.observe(embed, prev_action, first, state, noise)
    return Replayed(embed, torch.cat([seen.deter, seen.stoch], -1), action, first)


@pytest.mark.parametrize("leaking", [False, True])
def test_the_action_does_not_leak_through_the_recurrent_state(leaking, monkeypatch):
    model = small_model(vector_spec(3, discrete=(4,)), monkeypatch)
    drawn = inert(generator(), model, 200 * B)
    if leaking:
        drawn = drawn._replace(embed=drawn.feat[..., : model.rssm.size.deter])
    history = learn(make(FOUR, drawn.embed.shape[-1], model.feat_dim), drawn)
    cross_entropy = last(history, "icm/inverse_loss")
    if leaking:  # the trap is real: what the state was told looks like what the action did
        assert cross_entropy < 0.1 * math.log(4)
    else:
        assert cross_entropy > 0.95 * math.log(4)


def transition(icm, state, go):
    after = min(max(state + 2 * go - 1, 0), STATES - 1)
    embed, action = torch.eye(STATES), torch.eye(2)
    return icm.surprise(embed[state], action[go], embed[after]).item()


@pytest.mark.parametrize("seed", [0, 1])
def test_what_was_never_seen_surprises(seed):
    known, icm = 6, make(seed=seed)
    learn(icm, chain(generator(seed), 200 * B, known))
    moves = [(state, go) for state in range(STATES) for go in (0, 1)]
    inside = {move for move in moves if move[0] < known} - {(known - 1, 1)}
    outside = set(moves) - inside
    seen = max(transition(icm, *move) for move in inside)
    assert min(transition(icm, *move) for move in outside) > 5.0 * seen


def two_rings(source, batch):
    """Two rings of five, one stepped by a choice of two and one by a choice of three."""
    lead = (T, batch)
    picks = [torch.randint(0, n, lead, generator=source) for n in MULTI.sizes]
    steps = torch.stack([2 * picks[0] - 1, picks[1] - 1])
    start = torch.randint(0, 5, (2, 1, batch), generator=source)
    states = (start + steps.cumsum(1) - steps) % 5
    action = [one_hot(pick, n) for pick, n in zip(picks, MULTI.sizes, strict=True)]
    return rows(torch.cat([one_hot(s, 5) for s in states], -1), torch.cat(action, -1))


def test_every_choice_of_a_multi_discrete_action_is_told():
    history = learn(make(MULTI, 10, 10), two_rings(generator(), 200 * B))
    assert last(history, "icm/inverse_accuracy") > 0.99
    assert last(history, "icm/inverse_loss") < 0.2 * math.log(6)


def drift(source, batch):
    """A point moved by what the environment lets through of a continuous action."""
    action = torch.randn(T, batch, 2, generator=source)
    moves = action.clamp(-1.0, 1.0)
    return rows(torch.randn(batch, 2, generator=source) + moves.cumsum(0) - moves, action)


def test_continuous_actions_are_told():
    history = learn(make(BOX, 2, 2), drift(generator(), 150 * B))
    assert "icm/inverse_accuracy" not in history[0]
    assert last(history, "icm/inverse_loss") < 0.1 * history[0]["icm/inverse_loss"]


def test_head_learns_the_surprise_of_the_state_of_arrival():
    steps, icm = 3, make(embed=5, feat=3 * B)
    feat = torch.eye(steps * B).view(steps, B, -1)  # every row is told apart
    drawn = random_rows(steps=steps, embed=5)._replace(feat=feat)
    again = Replayed(*(torch.cat([x] * 300, 1) for x in drawn))
    before = {name: param.clone() for name, param in icm.named_parameters()}
    learn(icm, again, names=("icm_head",))
    for name, param in icm.named_parameters():
        assert name.startswith("head.") or torch.equal(param, before[name]), name
    surprise = icm.surprise(drawn.embed[:-1], drawn.action[:-1], drawn.embed[1:])
    counts = ~drawn.is_first[1:]
    assert 0 < counts.sum() < counts.numel()
    got = icm.reward(rollout(feat))
    torch.testing.assert_close(got[counts], surprise[counts], rtol=0.02, atol=1.0)


# Known answers, by hand


def rollout(feat):
    empty = torch.zeros(())
    return Imagined(feat, empty, empty, empty, empty, empty)


@pytest.mark.parametrize("spec", [TWO, MULTI, BOX])
def test_losses_pair_by_pair(spec):
    icm, drawn = make(spec), random_rows(spec)
    nn.init.normal_(icm.forward_model.out.weight, std=0.1, generator=generator(1))
    nn.init.normal_(icm.head.out.weight, std=0.1, generator=generator(2))
    inverse, forward, head = [], [], []
    for t in range(T - 1):
        for b in range(B):
            if drawn.is_first[t + 1, b]:
                continue
            action, phi = drawn.action[t, b], icm.encode(drawn.embed[t, b])
            after = icm.encode(drawn.embed[t + 1, b])
            guess = icm.inverse(torch.cat([phi, after]))
            if spec.kind == "continuous":
                action = action.clamp(-1.0, 1.0)
                inverse.append(0.5 * (guess - action).square().sum())
            else:
                parts = zip(guess.split(spec.sizes), action.split(spec.sizes), strict=True)
                inverse.append(sum(functional.cross_entropy(g, a.argmax()) for g, a in parts))
            forward.append(0.5 * (icm.forward_model(phi, action) - after).square().sum())
            head.append(icm.head(drawn.feat[t + 1, b]).loss(forward[-1]))
    losses, metrics = icm.losses(drawn)
    inverse, forward, head = (torch.stack(each).mean() for each in (inverse, forward, head))
    torch.testing.assert_close(losses["icm"], 0.8 * inverse + 0.2 * forward)
    torch.testing.assert_close(losses["icm_head"], head)
    torch.testing.assert_close(metrics["icm/inverse_loss"], inverse)
    torch.testing.assert_close(metrics["icm/forward_loss"], forward)
    assert torch.equal(metrics["intrinsic/icm_loss"], losses["icm"])
    assert not any(metric.requires_grad for metric in metrics.values())


def test_features_learn_from_the_inverse_loss_alone():
    icm, drawn = make(), random_rows()
    nn.init.normal_(icm.forward_model.out.weight, std=0.1, generator=generator(1))
    counts = ~drawn.is_first[1:]
    phi = icm.encode(drawn.embed)
    guess = icm.inverse(torch.cat([phi[:-1], phi[1:]], -1))[counts]
    inverse = functional.cross_entropy(guess, drawn.action[:-1][counts].argmax(-1))
    after, fixed = icm.forward_model(phi[:-1].detach(), drawn.action[:-1]), phi[1:].detach()
    forward = 0.5 * (after - fixed).square().sum(-1)[counts].mean()
    got = gradients(icm.losses(drawn)[0]["icm"], icm)
    want_inverse, want_forward = gradients(inverse, icm), gradients(forward, icm)
    assert by_part(want_inverse).items() >= {"encoder": True, "to_phi": True}.items()
    for name, grad in got.items():
        if name.startswith("head."):
            assert grad is None
        elif name.startswith("forward_model."):
            torch.testing.assert_close(grad, BETA * want_forward[name])
        else:
            torch.testing.assert_close(grad, (1.0 - BETA) * want_inverse[name])


@pytest.mark.parametrize("spec", [TWO, MULTI, BOX])
def test_gradients_stay_inside(spec):
    icm, drawn = make(spec), random_rows(spec)
    nn.init.normal_(icm.head.out.weight, std=0.1, generator=generator(2))
    leaves = [x.requires_grad_() for x in (drawn.embed, drawn.feat, drawn.action)]
    losses, _ = icm.losses(drawn)
    head = by_part(gradients(losses["icm_head"], icm))
    assert [part for part, touched in head.items() if touched] == ["head"]
    sum(losses.values()).backward()
    assert all(leaf.grad is None for leaf in leaves)


def test_pairs_across_a_reset_count_for_nothing():
    icm, drawn = make(MULTI), random_rows(MULTI)
    nn.init.normal_(icm.head.out.weight, std=0.1, generator=generator(2))
    crossing = drawn.is_first[1:]
    action = drawn.action.clone()
    action[:-1][crossing] = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0])
    feat = drawn.feat.clone()
    feat[1:][crossing] = 7.0
    other = drawn._replace(action=action, feat=feat)
    assert not torch.equal(action, drawn.action)
    one, two = (icm.losses(each) for each in (drawn, other))
    assert all(torch.equal(one[0][name], two[0][name]) for name in one[0])
    assert all(torch.equal(one[1][name], two[1][name]) for name in one[1])
    for name in one[0]:
        pairs = zip(*(gradients(each[0][name], icm).values() for each in (one, two)), strict=True)
        assert all(a is b or torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("spec", [TWO, MULTI, BOX])
def test_nothing_but_resets_gives_exact_zeros(spec):
    icm = make(spec)
    nn.init.normal_(icm.forward_model.out.weight, std=0.1, generator=generator(1))
    nn.init.normal_(icm.head.out.weight, std=0.1, generator=generator(2))
    drawn = random_rows(spec)
    losses, metrics = icm.losses(drawn._replace(is_first=torch.ones(T, B, dtype=torch.bool)))
    assert all(value.item() == 0.0 for value in (losses | metrics).values())
    for loss in losses.values():
        assert not any(by_part(gradients(loss, icm)).values())


def test_a_row_alone_between_resets_leaves_no_trace():
    drawn, icm = random_rows(steps=3, batch=2), make()
    first = torch.tensor([[True, True], [True, False], [True, False]])
    one, _ = icm.losses(drawn._replace(is_first=first))
    two, _ = icm.losses(Replayed(*(x[:, 1:] for x in drawn._replace(is_first=first))))
    torch.testing.assert_close(one["icm"], two["icm"])
    theirs, own = gradients(one["icm"], icm), gradients(two["icm"], icm)
    for name in own:
        torch.testing.assert_close(theirs[name], own[name])


def test_continuous_actions_count_as_the_environment_clips_them():
    icm, drawn = make(BOX), random_rows(BOX)
    clipped = drawn._replace(action=drawn.action.clamp(-1.0, 1.0))
    assert not torch.equal(drawn.action, clipped.action)
    one, two = icm.losses(drawn)[0], icm.losses(clipped)[0]
    assert all(torch.equal(one[name], two[name]) for name in one)
    rows = drawn.embed[:-1], drawn.embed[1:]
    far, near = (icm.surprise(rows[0], x.action[:-1], rows[1]) for x in (drawn, clipped))
    assert torch.equal(far, near)


def test_accuracy_is_the_share_of_choices():
    icm = make(MULTI)
    with torch.no_grad():
        for param in icm.inverse.parameters():
            param.zero_()
        icm.inverse[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0]))  # always (0, 2)
    picks = torch.tensor([[0, 2], [0, 1], [1, 0], [1, 2]])
    action = torch.cat([one_hot(picks[:, 0], 2), one_hot(picks[:, 1], 3)], -1)
    drawn = rows(torch.randn(2, 4, STATES), action.expand(2, 4, 5))
    assert icm.losses(drawn)[1]["icm/inverse_accuracy"].item() == 0.5


def test_surprise_before_training_is_how_far_the_features_moved():
    icm, embed = make(), torch.randn(2, 50, STATES)
    phi = icm.encode(embed)
    torch.testing.assert_close(phi.mean(-1), torch.zeros(2, 50), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        phi.square().sum(-1), torch.full((2, 50), FEATURES * 1.0), rtol=1e-2, atol=0
    )
    surprise = icm.surprise(embed[0], one_hot(torch.zeros(50, dtype=torch.int64), 2), embed[1])
    torch.testing.assert_close(surprise, 0.5 * (phi[0] - phi[1]).square().sum(-1).detach())
    assert not surprise.requires_grad


def test_reward_is_the_head_on_all_states_but_the_first():
    icm, steps, starts = make(feat=6), 5, 700  # more rows than one chunk
    nn.init.normal_(icm.head.out.weight, std=0.2, generator=generator(2))
    feat = torch.randn(steps + 1, starts, 6)
    reward = icm.reward(rollout(feat))
    assert reward.shape == (steps, starts)
    assert not reward.requires_grad
    want = icm.head(feat[1:]).mean().detach()
    assert (want < 0).any()
    torch.testing.assert_close(reward, want.clamp_min(0.0))


def test_reward_is_zero_before_training():
    assert not make(feat=6).reward(rollout(torch.randn(4, 3, 6))).any()


def test_weights_are_a_function_of_the_seed():
    state = torch.get_rng_state()
    one, two, other = make(), make(), make(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.to_phi.weight, other.to_phi.weight)


def test_models_and_head_learn_at_rates_of_their_own():
    config = ICMConfig(enabled=True, weight=0.1, lr=1e-4, head_lr=1e-2)
    icm = ICM(STATES, STATES, 32, TWO, config, 0)
    assert icm.rates() == {"icm": 1e-4, "icm_head": 1e-2}
    groups = icm.groups()
    assert {id(p) for p in groups["icm_head"]} == {id(p) for p in icm.head.parameters()}
    own = [id(param) for group in groups.values() for param in group]
    assert sorted(own) == sorted(id(param) for param in icm.parameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight", -0.1),
        ("weight", 101.0),
        ("weight", math.nan),
        ("lr", -1e-3),
        ("lr", 2.0),
        ("head_lr", 2.0),
    ],
)
def test_configuration_out_of_range(name, value):
    values = {"enabled": True, "weight": 0.1, "lr": 3e-4, "head_lr": 3e-4}
    with pytest.raises(ConfigError) as error:
        ICMConfig(**values | {name: value})
    assert error.value.key == name
