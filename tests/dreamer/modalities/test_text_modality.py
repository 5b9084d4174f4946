"""Text: nothing is unknown, every text is encoded once, what is said is learned and predicted."""

import pytest
import torch
from torch.nn import functional

from dreamer.modalities.text import LONGEST, READERS, TextConfig, TextDecoder, TextEncoder, words_of
from dreamer.modalities.tokenizer import (
    PAD,
    WORDS,
    Words,
    load_tokenizer,
    own_tokenizer,
    train_tokenizer,
)
from dreamer.nn.layers import Linear
from dreamer.nn.optim import LaProp
from dreamer.types import ConfigError, ObsSpec
from dreamer.world_model.sizes import SIZES

TINY = SIZES["tiny"]
SPECS = {"text": ObsSpec(shape=(64,), dtype="uint8", kind="text")}
COLOURS = ("red", "green", "blue", "grey", "purple", "yellow")
THINGS = ("ball", "box", "key", "door")
MISSIONS = [f"go to the {colour} {thing}" for colour in COLOURS for thing in THINGS]


def config(**changes):
    return TextConfig(**{"model": "own", "finetune": False, "tokenizer": "own"} | changes)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(texts, width=64):
    codes = [text.encode() for text in texts]
    return torch.tensor([[*code, *bytes(width - len(code))] for code in codes], dtype=torch.uint8)


def test_known_words_are_one_token_and_nothing_is_unknown():
    words = words_of("own")
    for word in WORDS.split():
        assert (words.rows(rows([word])) != PAD).sum() == 1, word
    ids = words.rows(rows(["go to the grey door", "naïve zebra", ""]))
    assert ids.shape == (3, LONGEST)
    assert (ids != PAD).sum(1).tolist()[::2] == [5, 0]
    assert [words.text(row) for row in ids.tolist()] == ["go to the grey door", "naïve zebra", ""]
    assert int(ids.max()) < words.size


def test_training_gives_the_same_tokenizer_every_time():
    assert own_tokenizer().to_str() == own_tokenizer().to_str()


def test_a_tokenizer_of_ones_own_is_read_from_a_file(tmp_path):
    train_tokenizer(["wingardium leviosa"] * 3, 300).save(str(tmp_path / "tokenizer.json"))
    words = words_of(str(tmp_path / "tokenizer.json"))
    assert (words.rows(rows(["wingardium leviosa"])) != PAD).sum() == 2
    with pytest.raises(ConfigError, match=r"tokenizer: found 'nowhere.json'; allowed: own, or a"):
        words_of("nowhere.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match=r"a tokenizer.json that can be read"):
        load_tokenizer(str(tmp_path / "broken.json"), "tokenizer")


def test_a_text_of_too_many_tokens_is_refused():
    words = Words(own_tokenizer(), 3, "tokens")
    with pytest.raises(
        ConfigError, match=r"tokens: found 3; allowed: more, for there are 4 tokens"
    ):
        words.rows(rows(["go to the door"]))


def test_each_text_is_encoded_once_and_the_same_wherever_it_stands():
    encoder = TextEncoder(SPECS, TINY, generator(), config())
    read = []
    encoder.reader.register_forward_pre_hook(lambda module, args: read.append(len(args[0])))
    texts = rows([MISSIONS[i % 3] for i in range(12)]).view(4, 3, -1)
    code = encoder({"text": texts})
    assert code.shape == (4, 3, encoder.out_dim)
    assert encoder.out_dim == READERS * TINY.units
    assert read == [3]
    assert torch.equal(code[0], code[3])
    assert not torch.equal(code[0, 0], code[0, 1])


def test_the_length_of_other_texts_changes_nothing():
    encoder = TextEncoder(SPECS, TINY, generator(), config())
    alone = encoder({"text": rows(["go to the door", ""])})
    beside = encoder(
        {"text": rows(["go to the door", "", "put the red ball next to the green box"])}
    )
    torch.testing.assert_close(alone, beside[:2], atol=1e-5, rtol=1e-4)
    assert alone.isfinite().all()


def test_the_order_of_words_counts():
    encoder = TextEncoder(SPECS, TINY, generator(), config())
    code = encoder({"text": rows(["the red ball on the blue box", "the blue ball on the red box"])})
    assert not torch.allclose(code[0], code[1], atol=1e-3)


def test_gradients_are_those_of_encoding_every_row():
    encoder = TextEncoder(SPECS, TINY, generator(), config())
    texts = rows([MISSIONS[i % 2] for i in range(6)])
    weight = torch.randn(6, encoder.out_dim, generator=generator(1))
    (encoder({"text": texts}) * weight).sum().backward()
    together = [param.grad.clone() for param in encoder.parameters()]
    encoder.zero_grad()
    for text, each in zip(texts, weight, strict=True):
        (encoder({"text": text[None]}) * each).sum().backward()
    for one, other in zip(together, encoder.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, atol=1e-4, rtol=1e-3)


def test_the_colour_that_is_named_is_learned():
    encoder = TextEncoder(SPECS, TINY, generator(), config())
    head = Linear(encoder.out_dim, len(COLOURS), generator())
    optimizer = LaProp({"all": [*encoder.parameters(), *head.parameters()]})
    colour = torch.arange(len(MISSIONS)) // len(THINGS)
    seen = torch.arange(len(MISSIONS)) % 5 > 0
    for _ in range(60):
        optimizer.zero_grad()
        logits = head(encoder({"text": rows(MISSIONS)[seen]}))
        functional.cross_entropy(logits, colour[seen]).backward()
        optimizer.step({"all": 3e-3})
    found = head(encoder({"text": rows(MISSIONS)})).argmax(-1)
    assert (found == colour).float()[seen].mean() == 1.0
    assert (found == colour).float()[~seen].mean() >= 0.8  # colours with things not seen together


def test_the_decoder_learns_to_say_what_a_feature_means():
    decoder = TextDecoder(SPECS, TINY, 16, generator(), config())
    feat = torch.randn(len(MISSIONS), 16, generator=generator(1))
    obs = {"text": rows(MISSIONS)}
    optimizer = LaProp({"all": list(decoder.parameters())})
    first = decoder.loss(feat, obs)["text"].mean()
    for _ in range(150):
        optimizer.zero_grad()
        decoder.loss(feat, obs)["text"].mean().backward()
        optimizer.step({"all": 3e-3})
    last = decoder.loss(feat, obs)["text"].mean()
    assert first > 6 * 4.0  # six tokens with the end, of about 500
    assert last < 0.1
    assert torch.equal(decoder.decode(feat)["text"], obs["text"])


def test_the_loss_counts_tokens_up_to_the_end():
    decoder = TextDecoder(SPECS, TINY, 16, generator(), config())
    feat = torch.randn(2, 16, generator=generator(1))
    both = decoder.loss(feat, {"text": rows(["", "go to the red ball"])})["text"]
    log_probs = decoder(feat)["text"].log_softmax(-1)
    torch.testing.assert_close(both[0], -log_probs[0, 0, PAD])
    ids = decoder.words.rows(rows(["go to the red ball"]))[0, :6]
    torch.testing.assert_close(both[1], -log_probs[1, range(6), ids].sum())


@pytest.mark.parametrize(("key", "value"), [("model", ""), ("finetune", True), ("tokenizer", "")])
def test_settings_that_say_nothing_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"{key}: found"):
        config(**{key: value})
