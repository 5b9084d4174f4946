"""The RSSM against a plain twin, and the properties that silent bugs break."""

from __future__ import annotations

import pytest
import torch
from builders import SMALL, generator, random_latents
from torch.nn import functional

from dreamer.nn.distributions import sample_one_hot
from dreamer.types import LatentState
from dreamer.world_model.block_gru import BLOCKS, BlockGRU
from dreamer.world_model.rssm import RSSM
from dreamer.world_model.sizes import SIZES, latent_fields

EMBED, ACTIONS = 7, 3
T, B = 6, 4


def small_rssm(double=True):
    rssm = RSSM(SMALL, EMBED, ACTIONS, generator())
    for name, param in rssm.named_parameters():
        if "scale" not in name:  # norms start at one, which the twin below takes for granted
            param.data += 0.2 * torch.randn(param.shape, generator=generator(len(name)))
    return rssm.double() if double else rssm


def inputs(batch=B, steps=T, dtype=torch.float64):
    """embed, prev_action, is_first, state, noise of a random window."""
    embed, action = torch.randn(steps, batch, EMBED), torch.randn(steps, batch, ACTIONS)
    deter, stoch = random_latents(SMALL, (batch,))
    one_hots = stoch.unflatten(-1, (SMALL.classes, SMALL.groups)).transpose(-1, -2)
    state = LatentState(deter.to(dtype), one_hots.to(dtype))
    is_first = torch.zeros(steps, batch, dtype=torch.bool)
    noise = torch.rand(steps, batch, SMALL.groups)
    return embed.to(dtype), action.to(dtype), is_first, state, noise


def norm_silu(x):
    return functional.silu(x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-4))


def plain_core(core, deter, stoch, action):
    """One step of the block GRU, block by block."""
    branches = [core.from_deter(deter), core.from_stoch(stoch)]
    branches.append(core.from_action(action / action.abs().clamp_min(1.0)))
    shared, width = torch.cat(branches, -1), SMALL.deter // BLOCKS
    hidden = []
    for g in range(BLOCKS):
        own = slice(g * width, (g + 1) * width)
        weight = torch.cat([core.recurrent[g], core.shared[own].t()])
        hidden.append(torch.cat([deter[:, own], shared], -1) @ weight + core.bias[own])
    normed, new = norm_silu(torch.cat(hidden, -1)), []
    for g in range(BLOCKS):
        own, gates = slice(g * width, (g + 1) * width), slice(3 * g * width, 3 * (g + 1) * width)
        out = normed[:, own] @ core.gates.weight[g] + core.gates.bias[gates]
        reset, candidate, update = out.split(width, -1)
        update = torch.sigmoid(update - 1.0)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        new.append(update * candidate + (1.0 - update) * deter[:, own])
    return torch.cat(new, -1)


def plain_probs(logit):
    softmax = logit.unflatten(-1, (SMALL.classes, SMALL.groups)).softmax(-2)
    return 0.99 * softmax + 0.01 / SMALL.classes


def plain_observe(rssm, embed, prev_action, is_first, state, noise):
    """The posterior scan with nothing moved out of the loop."""
    deter, stoch = state.deter, state.stoch.transpose(-1, -2).flatten(-2)
    deters, stochs, posts, priors = [], [], [], []
    for t in range(len(embed)):
        keep = (~is_first[t]).to(deter.dtype)[:, None]
        deter = plain_core(rssm.core, keep * deter, keep * stoch, keep * prev_action[t])
        priors.append(plain_probs(rssm.prior_logit(rssm.prior_hidden(deter))))
        hidden = rssm.post_hidden(torch.cat([deter, embed[t]], -1))
        posts.append(plain_probs(rssm.post_logit(hidden)))
        sample = sample_one_hot(posts[-1], noise[t], -2)
        stoch = (sample + posts[-1] - posts[-1].detach()).flatten(-2)
        deters.append(deter)
        stochs.append(stoch)
    return [torch.stack(each) for each in (deters, stochs, posts, priors)]


def test_scan_equals_its_plain_twin_in_values_and_gradients():
    rssm = small_rssm()
    embed, action, is_first, state, noise = inputs()
    action = action * 2  # some beyond 1
    is_first[2, 1] = is_first[0, 3] = is_first[5] = True
    embed.requires_grad_()
    got = rssm.observe(embed, action, is_first, state, noise)
    want = plain_observe(rssm, embed, action, is_first, state, noise)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    upstream = [torch.randn_like(each) for each in want]
    # The norm's scale is one in the twin, so that it has no gradient there.
    wrt = [p for n, p in rssm.named_parameters() if not (n.startswith("core.norm"))]
    wrt.append(embed)
    totals = [sum((x * u).sum() for x, u in zip(out, upstream, strict=True)) for out in (got, want)]
    slopes = [torch.autograd.grad(total, wrt) for total in totals]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_imagination_steps_equal_the_plain_twin():
    rssm = small_rssm()
    deter, stoch = (x.double() for x in random_latents(SMALL, (5,)))
    action, noise = torch.randn(5, ACTIONS, dtype=torch.float64) * 2, torch.rand(5, SMALL.groups)
    with torch.no_grad():
        got = rssm.imagine_step(deter, stoch, action, noise)
        want = plain_core(rssm.core, deter, stoch, action)
        prior = plain_probs(rssm.prior_logit(rssm.prior_hidden(want)))
    torch.testing.assert_close(got[0], want)
    torch.testing.assert_close(got[1], sample_one_hot(prior, noise, -2).flatten(-2))


def test_scan_is_the_same_with_and_without_gradients():
    rssm, window = small_rssm(double=False), inputs(dtype=torch.float32)
    with torch.no_grad():
        without = rssm.observe(*window)
    for a, b in zip(rssm.observe(*window), without, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [SMALL, SIZES["tiny"], SIZES["size1m"]])
def test_core_with_zero_weights_decays(size):
    core = BlockGRU(size, ACTIONS, generator())
    for param in core.parameters():
        torch.nn.init.zeros_(param)
    deter, stoch = random_latents(size, (3,))
    out = core(deter, stoch, core.action_branch(torch.randn(3, ACTIONS)))
    torch.testing.assert_close(out, 0.731059 * deter, rtol=1e-5, atol=1e-6)


def test_deter_stays_bounded():
    rssm = small_rssm(double=False)
    deter, stoch = random_latents(SMALL, (8,))
    for step in range(50):
        noise = torch.rand(8, SMALL.groups)
        action = 100 * torch.randn(8, ACTIONS)
        deter, stoch = rssm.imagine_step(deter, stoch, action, noise)
        assert deter.abs().max() <= 1.0, step


@pytest.mark.parametrize(("raw", "seen"), [(3.7, 1.0), (-0.5, -0.5), (-9.0, -1.0), (0.0, 0.0)])
def test_actions_beyond_the_box_enter_as_their_sign(raw, seen):
    core = small_rssm().core
    one, other = (torch.full((1, ACTIONS), x, dtype=torch.float64) for x in (raw, seen))
    assert torch.equal(core.action_branch(one), core.action_branch(other))


def test_recurrent_weights_count_the_inputs_of_all_blocks():
    size = SIZES["size1m"]
    core = BlockGRU(size, 6, generator())
    std = (size.deter + BLOCKS * 3 * size.hidden) ** -0.5
    assert core.recurrent.std().item() == pytest.approx(std, rel=0.02)
    assert core.shared.std().item() == pytest.approx(std, rel=0.02)


def test_a_first_row_erases_everything_before_it():
    rssm = small_rssm(double=False)
    embed, action, is_first, state, noise = inputs(steps=1, dtype=torch.float32)
    is_first[:] = True
    got = rssm.observe(embed, action, is_first, state, noise)
    zeros = rssm.initial(B), torch.zeros_like(action), torch.zeros_like(is_first)
    want = rssm.observe(embed, zeros[1], zeros[2], zeros[0], noise)
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


def test_a_reset_in_the_middle_starts_over():
    rssm = small_rssm(double=False)
    embed, action, is_first, state, noise = inputs(dtype=torch.float32)
    is_first[3] = True
    whole = rssm.observe(embed, action, is_first, state, noise)
    part = rssm.observe(embed[3:], action[3:], is_first[3:], rssm.initial(B), noise[3:])
    never = rssm.observe(embed, action, torch.zeros_like(is_first), state, noise)
    for a, b, c in zip(whole, part, never, strict=True):
        assert torch.equal(a[3:], b)
        assert torch.equal(a[:3], c[:3])  # and not one row too early
    assert not torch.equal(whole.deter[3], never.deter[3])


def test_a_reset_touches_its_own_sequence_only():
    rssm = small_rssm(double=False)
    embed, action, is_first, state, noise = inputs(dtype=torch.float32)
    before = rssm.observe(embed, action, is_first, state, noise)
    is_first[2, 1] = True
    after = rssm.observe(embed, action, is_first, state, noise)
    others = [0, 2, 3]
    for a, b in zip(after, before, strict=True):
        assert torch.equal(a[:, others], b[:, others])


def test_the_previous_action_acts_from_its_own_row_on():
    rssm = small_rssm(double=False)
    embed, action, is_first, state, noise = inputs(dtype=torch.float32)
    before = rssm.observe(embed, action, is_first, state, noise)
    other = action.clone()
    other[2] = -other[2]
    after = rssm.observe(embed, other, is_first, state, noise)
    assert torch.equal(after.deter[:2], before.deter[:2])
    assert not torch.equal(after.deter[2], before.deter[2])


def test_the_prior_sees_the_past_and_not_the_embedding_of_its_row():
    rssm = small_rssm(double=False)
    embed, action, is_first, state, noise = inputs(dtype=torch.float32)
    before = rssm.observe(embed, action, is_first, state, noise)
    other = embed.clone()
    other[3] += 5.0
    after = rssm.observe(other, action, is_first, state, noise)
    assert torch.equal(after.prior[:4], before.prior[:4])
    assert not torch.equal(after.post[3], before.post[3])
    assert not torch.equal(after.prior[4], before.prior[4])


def test_a_window_is_its_halves_one_after_the_other():
    rssm = small_rssm(double=False)
    embed, action, is_first, state, noise = inputs(dtype=torch.float32)
    whole = rssm.observe(embed, action, is_first, state, noise)
    head = rssm.observe(embed[:4], action[:4], is_first[:4], state, noise[:4])
    middle = rssm.latent(head.deter[-1], head.stoch[-1])
    tail = rssm.observe(embed[4:], action[4:], is_first[4:], middle, noise[4:])
    for a, b, c in zip(whole, head, tail, strict=True):
        torch.testing.assert_close(a, torch.cat([b, c]), rtol=1e-5, atol=1e-6)


def test_latents_are_one_hot_with_a_floor_under_the_probabilities():
    rssm = small_rssm(double=False)
    rssm.post_logit.weight.data *= 1e4
    out = rssm.observe(*inputs(dtype=torch.float32))
    stoch = rssm.latent(out.deter, out.stoch).stoch
    assert stoch.shape == (T, B, SMALL.groups, SMALL.classes)
    torch.testing.assert_close(stoch.sum(-1), torch.ones(T, B, SMALL.groups))
    assert out.post.min().item() == pytest.approx(0.01 / SMALL.classes, rel=1e-4)
    torch.testing.assert_close(out.post.sum(-2), torch.ones(T, B, SMALL.groups))


def test_samples_pick_the_class_that_the_noise_says():
    rssm = small_rssm(double=False)
    window = inputs(dtype=torch.float32)
    out = rssm.observe(*window)
    index = rssm.latent(out.deter, out.stoch).stoch.argmax(-1)
    below = (out.post.cumsum(-2) <= window[-1][:, :, None]).sum(-2)
    assert torch.equal(index, below)


@pytest.mark.parametrize("lead", [(5,), (2, 3)])
def test_packed_latents_come_back(lead):
    rssm = small_rssm(double=False)
    deter, stoch = random_latents(SMALL, lead)
    state = rssm.latent(deter, stoch)
    packed = rssm.pack(state)
    fields = latent_fields(SMALL)
    assert packed.keys() == fields.keys()
    for key, (shape, dtype) in fields.items():
        assert packed[key].shape == (*lead, *shape)
        assert str(packed[key].dtype) == f"torch.{dtype}"
    back = rssm.unpack(packed)
    assert torch.equal(back.stoch, state.stoch)
    torch.testing.assert_close(back.deter, deter, rtol=1e-3, atol=1e-6)


def test_classes_fit_into_a_byte():
    assert all(size.classes <= 256 for size in SIZES.values())


def test_initial_state_is_zero():
    state = small_rssm(double=False).initial(3)
    assert state.deter.shape == (3, SMALL.deter)
    assert state.stoch.shape == (3, SMALL.groups, SMALL.classes)
    assert not state.deter.any()
    assert not state.stoch.any()
