"""Encoders of Hugging Face, stored here by the tests: they read, and learn if they are to."""

import pytest
import torch
from builders import (
    SMALL,
    assert_same,
    generator,
    make_trainer,
    random_batch,
    snapshot,
    text,
    vector_spec,
)

from dreamer.modalities import libraries
from dreamer.modalities.hugging_face import HuggingFaceReader
from dreamer.modalities.text import TextConfig, TextEncoder
from dreamer.modalities.tokenizer import train_tokenizer
from dreamer.types import ConfigError
from dreamer.world_model.sizes import SIZES

pytest.importorskip("tokenizers")
UNITS = 10
MISSIONS = ["go to the red ball", "open the door", "pick up the grey key", ""]


@pytest.fixture(scope="module")
def library():
    pytest.importorskip("transformers")
    return libraries.transformers()


def store_model(library, folder, dtype=torch.float32, **changes):
    torch.manual_seed(0)
    values = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 1}
    values |= {"num_attention_heads": 2, "intermediate_size": 32}
    config = library.BertConfig(**values | changes)
    library.BertModel(config, add_pooling_layer=False).to(dtype).save_pretrained(folder)


def store_tokenizer(library, folder, **special):
    tokenizer = train_tokenizer(MISSIONS, 400)
    library.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


@pytest.fixture(scope="module")
def bert(library, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    store_model(library, folder)
    store_tokenizer(library, folder, pad_token="!")
    return str(folder)


def rows(texts, width=24):
    codes = [text.encode() for text in texts]
    return torch.tensor([[*code, *bytes(width - len(code))] for code in codes], dtype=torch.uint8)


def reader(name, finetune=False, seed=0):
    return HuggingFaceReader(str(name), finetune, UNITS, generator(seed))


@pytest.mark.parametrize("finetune", [False, True])
def test_it_reads_and_learns_if_it_is_to(bert, finetune):
    config = TextConfig(model=bert, finetune=finetune, tokenizer="own")
    encoder = TextEncoder({"text": text(24)}, SMALL, generator(), config)
    encoder.train()
    assert not encoder.reader.model.training  # dropout would make it random
    code = encoder({"text": rows(MISSIONS)})
    assert code.shape == (len(MISSIONS), encoder.out_dim)
    assert code.isfinite().all()
    assert torch.equal(code, encoder({"text": rows(MISSIONS)}))
    code.square().mean().backward()
    inner = [param.grad for param in encoder.reader.model.parameters()]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in inner) == finetune
    assert encoder.reader.project.weight.grad.abs().sum() > 0


def test_it_is_what_the_library_says(library, bert):
    model = library.AutoModel.from_pretrained(bert)
    tokenizer = library.AutoTokenizer.from_pretrained(bert)
    own = reader(bert)
    with torch.no_grad():
        hidden = model(**tokenizer(MISSIONS[:1], return_tensors="pt")).last_hidden_state
        read, present = own(rows(MISSIONS[:1]))
    torch.testing.assert_close(read, own.project(hidden))
    assert present.all()


def test_the_empty_text_alone_is_read_too(bert):
    read, present = reader(bert)(rows(["", ""]))
    assert read.shape == (2, 1, UNITS)
    assert read.isfinite().all()
    assert present.all()


def test_what_the_files_lack_is_the_same_every_time(bert):
    one = snapshot(dict(reader(bert).state_dict()))
    state = torch.get_rng_state()
    other = reader(bert)
    assert torch.equal(state, torch.get_rng_state())
    assert any("pooler" in name for name in one)
    assert_same(one, dict(other.state_dict()))


def test_numbers_of_half_the_length_become_whole(library, tmp_path):
    store_model(library, tmp_path, torch.bfloat16)
    store_tokenizer(library, tmp_path, pad_token="!")
    own = reader(tmp_path, finetune=True)
    assert {param.dtype for param in own.parameters()} == {torch.float32}


def refused(name):
    with pytest.raises(ConfigError) as caught:
        reader(name)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"world_model.text.model: found '{name}'; allowed: own, or a Hugging")
    return message


def test_what_is_not_there_is_named(library, tmp_path):
    refused(tmp_path / "nothing")
    assert "Unrecognized model" in refused(tmp_path)  # a folder with nothing in it


@pytest.mark.parametrize(
    ("changes", "special", "reason"),
    [
        ({}, None, "there is no tokenizer.json or vocabulary"),
        ({}, {}, "its tokenizer has no padding token"),
        ({"vocab_size": 20}, {"pad_token": "!"}, "tokens, of which it knows 20"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_named(library, tmp_path, changes, special, reason):
    store_model(library, tmp_path, **changes)
    if special is not None:
        store_tokenizer(library, tmp_path, **special)
    assert reason in refused(tmp_path)


def test_broken_files_are_named(library, tmp_path):
    store_model(library, tmp_path)
    store_tokenizer(library, tmp_path, pad_token="!")
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    assert "header" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "not a valid JSON" in refused(tmp_path)


def test_an_encoder_with_a_decoder_is_refused(library, tmp_path):
    sizes = {"vocab_size": 400, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1}
    library.T5Model(library.T5Config(**sizes, num_heads=2)).save_pretrained(tmp_path)
    store_tokenizer(library, tmp_path, pad_token="!")
    assert "T5Model is more than an encoder" in refused(tmp_path)


def test_a_text_that_is_too_long_is_named(library, tmp_path):
    store_model(library, tmp_path, max_position_embeddings=3)
    store_tokenizer(library, tmp_path, pad_token="!")
    with pytest.raises(ConfigError, match=r"reads 3 tokens'; allowed: a model for texts of 5 tok"):
        reader(tmp_path)(rows(MISSIONS))


# Training ---------------------------------------------------------------------------------------


def learn(trainer, updates, start=0):
    """A few updates on batches of missions."""
    words = rows(MISSIONS)
    for index in range(start, start + updates):
        batch = random_batch(trainer.model.spec, 2, 4, seed=index)
        batch.obs["text"] = words[(torch.arange(8) + index).view(2, 4) % len(words)]
        result = trainer.update_step(batch, index, 1.0)
    return trainer.read(result.metrics)


@pytest.fixture
def trained(bert, monkeypatch):
    """Makes a trainer of an agent with one text and one vector."""
    monkeypatch.setitem(SIZES, "tiny", SMALL)
    spec = vector_spec(3, discrete=(3,), text=text(24))

    def make(finetune):
        config = TextConfig(model=bert, finetune=finetune, tokenizer="own")
        return make_trainer(spec, world={"text": config}, hierarchy=True)

    return make


@pytest.mark.parametrize("finetune", [False, True])
def test_an_agent_learns_with_it_and_resumes_to_the_bit(trained, finetune):
    trainer = trained(finetune)
    before = snapshot(dict(trainer.model.encoders["text"].reader.state_dict()))
    learn(trainer, 3)
    saved = snapshot(trainer.state_dict())
    metrics = learn(trainer, 2, start=3)
    resumed = trained(finetune)
    resumed.load_state_dict(saved)
    assert learn(resumed, 2, start=3) == metrics
    assert_same(snapshot(resumed.state_dict()), snapshot(trainer.state_dict()))
    after = dict(trainer.model.encoders["text"].reader.state_dict())
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    pretrained = {name for name in moved if name.startswith("model.")}
    assert "project.weight" in moved
    assert bool(pretrained) == finetune
    assert not any("pooler" in name for name in moved)  # no gradient comes there


def test_the_optimiser_keeps_nothing_of_an_encoder_that_stays(trained):
    frozen, tuned = (trained(each).optimizer.square["world"].numel() for each in (False, True))
    model = trained(False).model.encoders["text"].reader.model
    assert tuned - frozen == sum(param.numel() for param in model.parameters())
