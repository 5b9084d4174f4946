"""The recurrent state as one opaque text: what an agent must remember between two requests.

A row of bytes in base64: version, agent, seed and step of the noise, the carry of world model and
policy to the bit, checksum. The server holds nothing, so that any worker can answer any request.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamer.types import ConfigError
from dreamer.world_model.rssm import RSSM, LatentState
from pipeline.serving.request import STATE

VERSION = 1
MARKS = [("version", "u1"), ("agent", "<u8"), ("seed", "<i8"), ("step", "<i8")]


class StateText:
    """Carries of many rows <-> one text per row.

    Args:
        rssm: Whose states these are.
        carry: A fresh carry of one row, as `Agent.state_dict` gives it.
        agent: 64-bit mark of the agent, whose states no other one accepts.
    """

    def __init__(self, rssm: RSSM, carry: Mapping[str, Tensor], agent: int) -> None:
        self.rssm, self.agent = rssm, agent
        packed = dict(carry) | {"stoch": torch.zeros(1, rssm.size.groups, dtype=torch.uint8)}
        self.tensors = {
            name: (value.cpu().numpy().dtype.newbyteorder("<"), tuple(value.shape[1:]))
            for name, value in sorted(packed.items())
        }
        fields: list[Any] = [*MARKS, *((name, *form) for name, form in self.tensors.items())]
        self.layout = np.dtype([*fields, ("check", "<u4")])

    def fresh(self, carry: Mapping[str, Tensor], seeds: Sequence[int]) -> np.ndarray:
        """(n,) rows of fresh episodes: their noise starts at step 0 of `seeds`."""
        return self.rows(carry, np.array(seeds, np.int64), np.zeros(len(seeds), np.int64))

    def rows(self, carry: Mapping[str, Tensor], seed: np.ndarray, step: np.ndarray) -> np.ndarray:
        """(n,) rows of a carry as `Agent.state_dict` gives it, without their checksums."""
        rows = np.zeros(len(seed), self.layout)
        rows["version"], rows["agent"], rows["seed"], rows["step"] = VERSION, self.agent, seed, step
        state = LatentState(carry["deter"], carry["stoch"])
        packed = dict(carry) | {"stoch": self.rssm.pack(state)["stoch"]}
        for name in self.tensors:
            rows[name] = packed[name].cpu().numpy()
        return rows

    def carry(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Inverse of `rows`, as `Agent.load_state_dict` takes it."""
        # Copies: one row of a record counts as contiguous with strides that torch refuses.
        carry = {
            name: torch.from_numpy(rows[name].astype(dtype.newbyteorder("="), order="C"))
            for name, (dtype, _) in self.tensors.items()
        }
        latent = self.rssm.unpack({"deter": carry["deter"], "stoch": carry["stoch"]})
        return carry | {"stoch": latent.stoch}

    def write(self, rows: np.ndarray) -> list[str]:
        """A text per row."""
        raw, width = rows.tobytes(), self.layout.itemsize
        bodies = [raw[at : at + width - 4] for at in range(0, len(raw), width)]
        return [
            base64.b64encode(body + zlib.crc32(body).to_bytes(4, "little")).decode("ascii")
            for body in bodies
        ]

    def read(self, texts: Mapping[int, Any]) -> np.ndarray:
        """(n,) rows of what clients sent, inverse of `write`.

        Args:
            texts: Number of the row in the request, for errors -> what came as its state.

        Raises:
            ConfigError: One is damaged, of another version of this program or of another agent.
        """
        places, raw = list(texts), [_bytes(text) for text in texts.values()]
        for place, text, body in zip(places, texts.values(), raw, strict=True):
            if fault := self._fault(body) if body else f"{text!s:.20} of {_length(text)}":
                raise _refusal(place, fault)
        rows = np.frombuffer(bytearray(b"".join(raw)), self.layout)
        foreign, wild = rows["agent"] != self.agent, self._wild(rows)
        if foreign.any():
            index = int(foreign.argmax())
            whose = f"a state of agent {rows['agent'][index]:016x}, this is {self.agent:016x}"
            raise _refusal(places[index], whose)
        if wild.any():
            raise _refusal(places[int(wild.argmax())], "values that no agent writes")
        return rows

    def _fault(self, raw: bytes) -> str | None:
        """What is wrong with the bytes of one row, whatever they stand for."""
        if len(raw) < 5 or zlib.crc32(raw[:-4]) != int.from_bytes(raw[-4:], "little"):
            return "a damaged text"
        if raw[0] != VERSION:
            return f"a state of version {raw[0]}, this is version {VERSION}"
        return None if len(raw) == self.layout.itemsize else "a state of another agent"

    def _wild(self, rows: np.ndarray) -> np.ndarray:
        """(n,) bool: rows with values out of range."""
        wild = (rows["stoch"] >= self.rssm.size.classes).any(1) | (rows["step"] < 0)
        for name, (dtype, _) in self.tensors.items():
            if dtype.kind == "f":
                wild |= ~np.isfinite(rows[name]).all(1)
        return wild


def _refusal(place: int, fault: str) -> ConfigError:
    allowed = "the text of the answer before, unchanged, or '' to start an episode"
    return ConfigError(f"inputs.{STATE}[{place}]", fault, allowed)


def _bytes(text: Any) -> bytes:  # noqa: ANN401
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return b""


def _length(text: Any) -> str:  # noqa: ANN401
    return f"{len(text)} characters" if isinstance(text, str) else type(text).__name__
