"""The recorder of parameter reads notes what was read, no more and no less."""

import dataclasses
import pickle
from dataclasses import dataclass

from read_recorder import record, undeclared, unread


@dataclass(frozen=True, kw_only=True)
class Part:
    lr: float
    width: int

    @property
    def double(self):
        return 2 * self.width


@dataclass(frozen=True, kw_only=True)
class Whole:
    seed: int
    policy: Part
    world: Part


WHOLE = Whole(seed=1, policy=Part(lr=0.1, width=2), world=Part(lr=0.2, width=3))


def test_values_are_noted_and_sections_are_not():
    params, reads = record(WHOLE)
    section = params.policy
    assert reads == set()
    assert section.lr == 0.1
    assert reads == {"policy.lr"}
    assert params.world.double == 6
    assert params.seed == 1
    assert reads == {"policy.lr", "world.width", "seed"}


def test_it_passes_for_the_original():
    params, reads = record(WHOLE)
    assert isinstance(params.policy, Part)
    assert reads == set()
    assert dataclasses.asdict(params.world) == {"lr": 0.2, "width": 3}
    assert reads == {"world.lr", "world.width"}
    assert dataclasses.replace(params.policy, lr=0.5).lr == 0.5


def test_pickling_reads_everything_below():
    params, reads = record(WHOLE)
    copy = pickle.loads(pickle.dumps(params.policy))
    assert type(copy) is Part
    assert copy == WHOLE.policy
    assert reads == {"policy.lr", "policy.width"}


def test_declared_names_cover_what_lies_below_them():
    reads = {"seed", "policy.lr", "world.width"}
    assert undeclared(reads, ["seed", "policy", "world.width"]) == set()
    assert undeclared(reads, ["seed", "pol", "world.lr"]) == {"policy.lr", "world.width"}
    assert unread(reads, ["seed", "policy", "world.lr", "train"]) == {"world.lr", "train"}
