"""Images: resolutions, scaling, and the sub-pixel form of upsampling and convolution."""

from __future__ import annotations

import pytest
import torch
from builders import SMALL, generator, image
from torch.nn import functional

from dreamer.modalities.image import Conv, ImageDecoder, ImageEncoder
from dreamer.types import ConfigError
from dreamer.world_model.sizes import SIZES, Size

FEAT = SMALL.deter + SMALL.groups * SMALL.classes


def pixels(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=generator(seed), dtype=torch.uint8)


@pytest.mark.parametrize("last", [False, True])
def test_sub_pixel_convolution_is_upsampling_and_convolution(last):
    conv = Conv(3, 4, generator(), last=last).double()
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 5, 7, 3, dtype=torch.float64, requires_grad=True)
    big = functional.interpolate(x.permute(0, 3, 1, 2), scale_factor=2, mode="nearest")
    want = functional.conv2d(big, conv.weight, conv.bias, padding=2).permute(0, 2, 3, 1)
    if not last:
        want = functional.silu(functional.rms_norm(want, (4,), conv.activate.scale, 1e-4))
    got = conv.up(x)
    torch.testing.assert_close(got, want)
    params = [x, *conv.parameters()]
    weights = torch.randn_like(want)
    pairs = zip(
        torch.autograd.grad((got * weights).sum(), params),
        torch.autograd.grad((want * weights).sum(), params),
        strict=True,
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b)


def test_downward_convolution_pools_before_the_norm():
    conv = Conv(2, 4, generator())
    x = torch.randn(3, 6, 8, 2)
    out = functional.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=2)
    out = functional.max_pool2d(out, 2).permute(0, 2, 3, 1)
    want = functional.silu(functional.rms_norm(out, (4,), conv.activate.scale, 1e-4))
    torch.testing.assert_close(conv.down(x), want)


def test_convolutions_start_at_one_over_the_root_of_their_inputs():
    conv = Conv(16, 64, generator())
    assert conv.weight.std().item() == pytest.approx((25 * 16) ** -0.5, rel=0.02)


# Stages halve down to 3 .. 5 pixels; uneven sizes are padded to a multiple first.
RESOLUTIONS = {
    (64, 64): (4, 4),
    (84, 84): (6, 6),
    (96, 96): (6, 6),
    (40, 40): (5, 5),
    (6, 6): (3, 3),
    (7, 7): (4, 4),
    (8, 6): (4, 3),
    (13, 17): (4, 5),
    (20, 12): (5, 3),
    (33, 47): (5, 6),
}


@pytest.mark.parametrize(("size", "low"), RESOLUTIONS.items())
def test_resolutions(size, low):
    specs, obs = {"eye": image(*size)}, {"eye": pixels(2, 3, *size, 3)}
    encoder = ImageEncoder(specs, SMALL, generator())
    channels = encoder.convs[-1].weight.shape[0]
    embed = encoder(obs)
    assert embed.shape == (2, 3, encoder.out_dim) == (2, 3, channels * low[0] * low[1])
    decoder = ImageDecoder(specs, SMALL, FEAT, generator())
    feat = torch.randn(2, 3, FEAT)
    decoded = decoder.decode(feat)["eye"]
    assert decoded.shape == (2, 3, *size, 3)
    assert decoded.dtype == torch.uint8
    loss = decoder.loss(feat, obs)["eye"]
    want = (decoder(feat)["eye"] - obs["eye"] / 255.0).square().sum((2, 3, 4))
    torch.testing.assert_close(loss, want)


@pytest.mark.parametrize("name", ["tiny", "size1m", "size12m"])
@pytest.mark.parametrize("side", [6, 12, 24, 48])
def test_every_number_of_stages_fits_every_size(name, side):
    widths = SIZES[name]
    with torch.device("meta"):
        decoder = ImageDecoder({"eye": image(side, side)}, widths, widths.deter + 8, generator())
        out = decoder(torch.zeros(1, widths.deter + 8))
    assert out["eye"].shape == (1, side, side, 3)


def test_the_64_pixel_networks_have_the_official_widths():
    widths = Size(deter=64, hidden=8, groups=4, classes=4, depth=4, units=8)
    encoder = ImageEncoder({"eye": image(64, 64)}, widths, generator())
    assert [conv.weight.shape[0] for conv in encoder.convs] == [8, 12, 16, 16]
    decoder = ImageDecoder({"eye": image(64, 64)}, widths, 80, generator())
    assert [conv.weight.shape[0] for conv in decoder.convs] == [16, 12, 8, 3]


@pytest.mark.parametrize(("change", "shift"), [(0, 0.0), (51, 0.2)])
def test_pixels_enter_as_shares_of_255_around_zero(change, shift):
    # Without bias the response to a constant image is linear before the norm.
    encoder = ImageEncoder({"eye": image(6, 6, 1)}, SMALL, generator())
    seen = []
    encoder.convs[0].down = lambda x: seen.append(x) or x
    grey = torch.full((1, 6, 6, 1), 100, dtype=torch.uint8)
    encoder({"eye": grey})
    encoder({"eye": grey + change})
    assert seen[0].flatten()[0].item() == pytest.approx(100 / 255 - 0.5)
    torch.testing.assert_close(seen[1] - seen[0], torch.full_like(seen[0], shift))


def test_keys_share_the_resolution_and_are_split_again():
    specs = {"depth": image(8, 8, 1), "color": image(8, 8, 3)}
    decoder = ImageDecoder(specs, SMALL, FEAT, generator())
    out = decoder(torch.randn(2, FEAT))
    assert list(out) == ["color", "depth"]
    assert (out["color"].shape[-1], out["depth"].shape[-1]) == (3, 1)


def test_images_of_different_or_too_small_resolutions_are_refused():
    with pytest.raises(ConfigError, match=r"'b'\]: found \[\(8, 8\), \(8, 9\)\]; allowed: one "):
        ImageEncoder({"a": image(8, 8), "b": image(8, 9)}, SMALL, generator())
    with pytest.raises(ConfigError, match="found '5x64'; allowed: 6x6"):
        ImageEncoder({"a": image(5, 64)}, SMALL, generator())


def test_every_block_of_deter_owns_a_slice_of_the_channels():
    widths = Size(deter=16, hidden=8, groups=2, classes=2, depth=4, units=8)
    decoder = ImageDecoder({"eye": image(6, 6)}, widths, 20, generator())
    spread = decoder.from_deter(torch.zeros(1, 16))
    moved = decoder.from_deter(torch.eye(16)[:1])
    cells = spread.shape[1]
    changed = (moved != spread).flatten().nonzero().flatten()
    assert len(changed) == cells // 8
