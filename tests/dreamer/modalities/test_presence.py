"""Which modalities count: dropped by chance, withheld by wish, missing because a sensor failed."""

import pytest
import torch

from dreamer.modalities.presence import drop_one, flags_of, sensed, withhold
from dreamer.types import ConfigError, ObsSpec

NAMES = ("audio", "image", "vector")
VECTOR = ObsSpec(shape=(2,), dtype="float32", kind="vector")


def test_dropout_takes_one_modality_of_as_many_sequences_as_it_shall():
    noise = torch.tensor([[0.0, 0.49, 0.5, 0.3], [0.0, 0.34, 0.9, 0.999]])
    kept = drop_one(NAMES, 0.5, noise)
    assert kept["audio"].tolist() == [False, True, True, True]
    assert kept["image"].tolist() == [True, False, True, True]
    assert kept["vector"].tolist() == [True, True, True, False]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_dropout_is_fair(share):
    noise = torch.rand(2, 60_000, generator=torch.Generator().manual_seed(0))
    lost = torch.stack([~mark for mark in drop_one(NAMES, share, noise).values()])
    assert lost.sum(0).max() <= 1
    each = lost.float().mean(1)
    error = 4 * (max(share, 1e-9) / 3 / 60_000) ** 0.5
    torch.testing.assert_close(each, torch.full((3,), share / 3), atol=error, rtol=0.0)


def test_withholding_marks_what_is_taken():
    like = torch.zeros(2, 5)
    assert withhold(NAMES, (), like) is None
    allowed = withhold(NAMES, ("image",), like)
    assert {name: mark.tolist() for name, mark in allowed.items()} == {
        "audio": [True, True],
        "image": [False, False],
        "vector": [True, True],
    }


def test_what_the_agent_does_not_have_cannot_be_withheld():
    message = r"--withhold: found 'smell'; allowed: modalities of the agent: \['audio', 'image', "
    with pytest.raises(ConfigError, match=message):
        withhold(NAMES, ("smell",), torch.zeros(1))


def test_a_modality_is_there_if_all_of_its_keys_are():
    obs = {"present/a": torch.tensor([[1], [0], [1]]), "present/b": torch.tensor([[1], [1], [0]])}
    groups = {"audio": ["present/a", "present/b"], "image": []}
    marks = sensed(groups, obs, None)
    assert marks["audio"].tolist() == [True, False, False]
    assert marks["image"].tolist() == [True, True, True]
    allowed = {"audio": torch.tensor(True), "image": torch.tensor([True, True, False])}
    marks = sensed(groups, obs, allowed)
    assert marks["audio"].tolist() == [True, False, False]
    assert marks["image"].tolist() == [True, True, False]


def test_nothing_is_marked_where_nothing_can_be_missing():
    assert sensed({"vector": []}, {"v": torch.zeros(1)}, None) is None


def test_flags_belong_to_keys():
    groups = {"vector": {"a": VECTOR, "b": VECTOR}}
    assert flags_of(groups, ["a", "b", "present/b"]) == {"b": "present/b"}
