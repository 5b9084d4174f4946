"""The cost of modalities: one tiny comparison, and what an agent with one modality is spared."""

from dataclasses import replace

from benchmarks import senses
from benchmarks.workloads import WORKLOADS, make_batch, make_trainer

TINY = {"size": "tiny", "seq_len": 4, "batch_size": 2, "horizon": 3}
FOUR = replace(senses.FOUR, **TINY)
ONE = replace(WORKLOADS["tiny"], seq_len=4, batch_size=2, horizon=3)


def test_the_comparison_is_of_attention_and_the_rest_is_the_same():
    result = senses.measure(1, FOUR, ONE)
    assert result["parameters"]["attention"] > result["parameters"]["concat"]
    vector = result["vector"]
    assert vector["parameters_attention"] == vector["parameters_concat"]
    assert vector["gflop_attention"] == vector["gflop_concat"] > 0
    assert result["import"]["heavy"] == []
    said = senses.report(result | {"attention_share": 0.2})
    assert "attention adds 20.0% (limit 15%: not met)" in said
    assert "heavy libraries: none" in said


def test_batches_hold_what_their_specs_promise():
    batch = make_batch(FOUR, make_trainer(FOUR))
    assert {k: str(v.dtype).removeprefix("torch.") for k, v in batch.obs.items()} == {
        key: spec.dtype for key, spec in FOUR.spec.obs.items()
    }
    assert batch.obs["audio"].abs().max() <= 1.0
    assert batch.obs["text"].min() >= ord("a")
