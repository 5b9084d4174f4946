"""Named model sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """Widths of one named model size (official names, and `tiny` for CPU).

    Attributes:
        deter: D. hidden: Width of the RSSM's inner layers. groups, classes: S and C of `stoch`.
        depth: Base channels of the CNN. units: Width of all MLPs.
    """

    deter: int
    hidden: int
    groups: int
    classes: int
    depth: int
    units: int


SIZES = {
    "tiny": Size(deter=128, hidden=64, groups=8, classes=8, depth=4, units=64),
    "size1m": Size(deter=512, hidden=64, groups=32, classes=4, depth=4, units=64),
    "size12m": Size(deter=2048, hidden=256, groups=32, classes=16, depth=16, units=256),
    "size25m": Size(deter=3072, hidden=384, groups=32, classes=24, depth=24, units=384),
    "size50m": Size(deter=4096, hidden=512, groups=32, classes=32, depth=32, units=512),
    "size100m": Size(deter=6144, hidden=768, groups=32, classes=48, depth=48, units=768),
    "size200m": Size(deter=8192, hidden=1024, groups=32, classes=64, depth=64, units=1024),
    "size400m": Size(deter=12288, hidden=1536, groups=32, classes=96, depth=96, units=1536),
}


def latent_fields(size: Size) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and numpy dtype of one packed latent, as the buffer wants them."""
    return {"deter": ((size.deter,), "float16"), "stoch": ((size.groups,), "uint8")}
