"""Attention between senses: begins as concatenation, hears what is there, learns what takes two."""

import pytest
import torch
from torch.nn import functional

from dreamer.modalities.fusion import AttentionFusion, Sense, concatenate
from dreamer.nn.layers import MLP, Linear
from dreamer.nn.optim import LaProp

SENSES = {"audio": Sense(3, 4), "image": Sense(5, 8), "vector": Sense(1, 16)}
UNITS = 32


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def parts(*lead, seed=1):
    source = generator(seed)
    return {k: torch.randn(*lead, s.tokens * s.width, generator=source) for k, s in SENSES.items()}


def fusion():
    return AttentionFusion(SENSES, UNITS, generator())


def stirred():
    """As after some training: the way back is no longer zero."""
    made, source = fusion(), generator(7)
    with torch.no_grad():
        for linear in made.leave.values():
            linear.weight.copy_(torch.randn(linear.weight.shape, generator=source) / 4)
    return made


@pytest.mark.parametrize("lead", [(), (6,), (2, 3)])
def test_it_begins_as_concatenation_to_the_bit(lead):
    code = parts(*lead)
    assert torch.equal(fusion()(code), concatenate(code))
    every = {name: torch.ones(lead, dtype=torch.bool) for name in SENSES}
    assert torch.equal(fusion()(code, every), concatenate(code))


def test_every_sense_is_heard_by_every_other():
    made, code = stirred(), parts(4)
    before = made(code).split([12, 40, 16], -1)
    for i, name in enumerate(SENSES):
        louder = made(code | {name: code[name] + 1.0}).split([12, 40, 16], -1)
        assert all(not torch.allclose(a, b) for a, b in zip(before, louder, strict=True)), i


def test_what_is_absent_is_zeros_and_changes_nothing_for_the_others():
    made, code = stirred(), parts(2)
    present = {name: torch.tensor([True, name != "image"]) for name in SENSES}
    fused = made(code, present)
    noise = made(code | {"image": code["image"] + 5.0}, present)
    assert torch.equal(fused[1], noise[1])
    assert not torch.allclose(fused[0], noise[0])
    assert (fused[1, 12:52] == 0).all()
    assert torch.equal(concatenate(code, present)[1, 12:52], torch.zeros(40))
    assert torch.equal(concatenate(code, present)[0], concatenate(code)[0])


@pytest.mark.parametrize("lead", [(), (2, 3)])
def test_the_weights_say_whom_each_token_hears(lead):
    made, code = stirred(), parts(*lead)
    weights = made.weights(code)
    assert weights.shape == (*lead, 1, 4, 9, 9)
    torch.testing.assert_close(weights.sum(-1), torch.ones(*lead, 1, 4, 9))
    present = {name: torch.full(lead, name != "image") for name in SENSES}
    deaf = made.weights(code, present)
    assert (deaf[..., 3:8] == 0).all()
    torch.testing.assert_close(deaf.sum(-1), torch.ones(*lead, 1, 4, 9))


def test_the_weights_are_those_of_the_block_on_all_tokens():
    made, code = stirred(), parts(6)
    tokens = [
        torch.nn.functional.linear(code[name].view(6, *sense), made.enter[name].weight)
        + made.enter[name].bias
        + made.place[name]
        for name, sense in SENSES.items()
    ]
    expected = made.blocks[0].weights(torch.cat(tokens, 1))
    torch.testing.assert_close(made.weights(code)[:, 0], expected)


def test_rows_do_not_mix():
    made, code = stirred(), parts(3)
    alone = {name: value[1:2] for name, value in code.items()}
    torch.testing.assert_close(made(code)[1], made(alone)[0])


def test_gradients_reach_everything_once_the_way_back_is_open():
    made, code = stirred(), parts(4)
    made(code).square().sum().backward()
    for name, param in made.named_parameters():
        assert param.grad is not None, name
        assert param.grad.abs().sum() > 0, name


def test_which_of_two_places_holds_what_is_named_is_learned():
    """Two places hold different things, a word names one of them: where is it? XOR-like."""
    senses = {"image": Sense(2, 8), "text": Sense(1, 8)}
    things = torch.randn(3, 8, generator=generator(3))
    made = AttentionFusion(senses, UNITS, generator())
    head = torch.nn.Sequential(MLP(24, UNITS, 1, generator()), Linear(UNITS, 2, generator()))
    optimizer = LaProp({"all": [*made.parameters(), *head.parameters()]})
    random = generator(4)

    def draw(rows):
        pair = torch.rand(rows, 3, generator=random).argsort(-1)[:, :2]
        side = torch.randint(2, (rows,), generator=random)
        named = pair.gather(1, side[:, None])[:, 0]
        return {"image": things[pair].flatten(1), "text": things[named]}, side

    for _ in range(150):
        code, side = draw(64)
        optimizer.zero_grad()
        functional.cross_entropy(head(made(code)), side).backward()
        optimizer.step({"all": 3e-3})
    code, side = draw(500)
    assert (head(made(code)).argmax(-1) == side).float().mean() > 0.97


def test_nothing_at_all_is_zeros_with_finite_gradients():
    made, code = stirred(), {name: part.requires_grad_() for name, part in parts(2).items()}
    fused = made(code, {name: torch.tensor([True, False]) for name in SENSES})
    fused.square().sum().backward()
    assert (fused[1] == 0).all()
    assert all(torch.isfinite(part.grad).all() for part in code.values())
    assert all(torch.isfinite(weight.grad).all() for weight in made.parameters())
