"""Checkpoints: exact round trips, equal bytes, damage found, never half-written."""

import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer import checkpoint
from dreamer.types import CheckpointError

ROOT = Path(__file__).parents[2]
META = {"step": 7, "names": ["a", "b"]}


def tensors():
    return {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}


def run_python(*arguments):
    """Run Python with this project importable, whatever the current folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )


def content(folder: Path):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def names(folder: Path):
    return sorted(path.name for path in folder.iterdir())


def test_write_makes_exactly_two_files_with_a_known_checksum(tmp_path):
    checkpoint.write(tmp_path / "ck", tensors(), META)
    assert names(tmp_path) == ["ck"]
    assert names(tmp_path / "ck") == ["meta.json", "tensors.safetensors"]
    document = json.loads((tmp_path / "ck/meta.json").read_text())
    data = (tmp_path / "ck/tensors.safetensors").read_bytes()
    assert document["format"] == 1
    assert document["sha256"] == hashlib.sha256(data).hexdigest()
    assert document["meta"] == META
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert "__metadata__" not in header


def test_round_trip(tmp_path):
    checkpoint.write(tmp_path / "deep/er/ck", tensors(), META)
    read, meta = checkpoint.read(tmp_path / "deep/er/ck")
    torch.testing.assert_close(read, tensors(), rtol=0, atol=0)
    assert meta == META


def test_no_tensors_at_all(tmp_path):
    checkpoint.write(tmp_path / "ck", {}, {})
    assert checkpoint.read(tmp_path / "ck") == ({}, {})


def test_bytes_do_not_depend_on_insertion_order_or_process(tmp_path):
    checkpoint.write(tmp_path / "one", tensors(), {"b": 1, "a": 0.1})
    backwards = dict(reversed(tensors().items()))
    checkpoint.write(tmp_path / "two", backwards, {"a": 0.1, "b": 1})
    code = (
        "import torch, sys; from pathlib import Path; from dreamer import checkpoint\n"
        "t = {'n': torch.tensor(3), 'w': torch.arange(6.0).view(2, 3)}\n"
        "checkpoint.write(Path(sys.argv[1]), t, {'a': 0.1, 'b': 1})"
    )
    run_python("-c", code, tmp_path / "three")
    assert content(tmp_path / "one") == content(tmp_path / "two") == content(tmp_path / "three")


def test_shared_views_and_arrays_are_accepted(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    given = {
        "base": base,
        "same": base,
        "transposed": base.t(),
        "row": base[1],
        "parameter": torch.nn.Parameter(base[:2]),
        "array": np.arange(5, dtype=">i4")[::2],
        "empty": torch.zeros(0, 3),
    }
    given["array"].setflags(write=False)
    checkpoint.write(tmp_path / "ck", given, {})
    read, _ = checkpoint.read(tmp_path / "ck")
    assert read["same"].equal(base)
    assert read["transposed"].equal(base.t())
    assert read["row"].equal(base[1])
    assert read["parameter"].equal(base[:2])
    assert read["array"].tolist() == [0, 2, 4]
    assert read["empty"].shape == (0, 3)
    assert (tmp_path / "ck/tensors.safetensors").stat().st_size < 1000  # views, not their storages


def test_replacing_leaves_only_the_new(tmp_path):
    checkpoint.write(tmp_path / "ck", {"old": torch.zeros(1)}, {"v": 1})
    checkpoint.write(tmp_path / "ck", tensors(), {"v": 2})
    assert names(tmp_path) == ["ck"]
    read, meta = checkpoint.read(tmp_path / "ck")
    assert set(read) == {"w", "n"}
    assert meta == {"v": 2}


def test_a_kill_at_every_file_operation_leaves_the_old_or_the_new(tmp_path):
    """Ends the process before the n-th rename, sync or unlink, for every n."""
    code = """
import os, sys, torch
from pathlib import Path
from dreamer import checkpoint
left = int(sys.argv[2])
def counted(function):
    def call(*args, **kwargs):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return function(*args, **kwargs)
    return call
for name in ("rename", "fsync", "unlink", "rmdir", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
checkpoint.write(Path(sys.argv[1]), {"w": torch.ones(2)}, {"v": "new"})
"""
    script = tmp_path / "writer.py"
    script.write_text(
        "import subprocess, sys\n"
        "import torch, safetensors.torch\n"  # imported once, forked for every n
        "import os\n"
        f"code = {code!r}\n"
        "from pathlib import Path\n"
        "from dreamer import checkpoint\n"
        "root = Path(sys.argv[1])\n"
        "for n in range(40):\n"
        "    target = root / str(n) / 'ck'\n"
        "    checkpoint.write(target, {'w': torch.zeros(2)}, {'v': 'old'})\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        sys.argv = ['x', str(target), str(n)]\n"
        "        exec(code, {'__name__': 'killed'})\n"
        "        os._exit(0)\n"
        "    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:\n"
        "        break\n"
    )
    run_python(script, tmp_path / "runs")
    seen = []
    for n in range(len(names(tmp_path / "runs"))):
        target = tmp_path / "runs" / str(n) / "ck"
        read, meta = checkpoint.read(target)
        assert read["w"].tolist() == ([0, 0] if meta["v"] == "old" else [1, 1])
        seen.append(meta["v"])
        checkpoint.write(target, {}, {"v": "again"})  # and the leftovers are cleared
        assert names(target.parent) == ["ck"]
    assert len(seen) > 8
    assert seen == sorted(seen, reverse=True)  # old ... old, new ... new
    assert set(seen) == {"old", "new"}


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    checkpoint.write(tmp_path / "ck", tensors(), META)
    before = content(tmp_path / "ck")
    code = (
        "import resource, sys, torch; from pathlib import Path; from dreamer import checkpoint\n"
        "from dreamer.types import CheckpointError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        "try: checkpoint.write(Path(sys.argv[1]), {'w': torch.ones(100000)}, {})\n"
        "except CheckpointError as error: print(error)"
    )
    done = run_python("-c", code, tmp_path / "ck")
    assert done.stdout.count("\n") == 1
    assert "cannot write the checkpoint" in done.stdout
    assert names(tmp_path) == ["ck"]
    assert content(tmp_path / "ck") == before


def test_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint") as caught:
        checkpoint.write(tmp_path / "file/ck", tensors(), META)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="it is a file"):
        checkpoint.write(tmp_path / "file", tensors(), META)


def test_a_folder_of_others_is_not_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match=r"letter\.txt"):
        checkpoint.write(tmp_path / "home", tensors(), META)
    assert content(tmp_path / "home") == {"letter.txt": b"dear"}


def test_meta_that_is_not_json_writes_nothing(tmp_path):
    with pytest.raises(TypeError):
        checkpoint.write(tmp_path / "ck", tensors(), {"x": object()})
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.write(tmp_path / "ck", tensors(), {"x": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "tensors.safetensors").unlink(), "cannot be read"),
        (lambda f: (f / "meta.json").unlink(), "cannot be read"),
        (lambda f: (f / "meta.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "meta.json").write_text("[]"), "format None"),
        (
            lambda f: replace(f / "meta.json", b'"format": 1', b'"format": 2'),
            "format 2; allowed: 1",
        ),
        (lambda f: replace(f / "meta.json", b'"step": 7', b'"step": 6'), "meta.json: damaged"),
        (lambda f: replace(f / "meta.json", b'"sha256"', b'"sha257"'), "safetensors: damaged"),
        (lambda f: flip_last_byte(f / "tensors.safetensors"), "safetensors: damaged"),
        (lambda f: os.truncate(f / "tensors.safetensors", 20), "safetensors: damaged"),
    ],
)
def test_damage_is_one_line(tmp_path, damage, message):
    checkpoint.write(tmp_path / "ck", tensors(), META)
    damage(tmp_path / "ck")
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.read(tmp_path / "ck")
    assert "\n" not in str(caught.value)


def replace(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


def flip_last_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def test_missing_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        checkpoint.read(tmp_path / "nothing")


def test_steps_keep_the_last_two(tmp_path):
    assert checkpoint.read_latest(tmp_path / "run") is None
    for step in (5, 10, 2000):
        checkpoint.write_step(tmp_path / "run", step, {"s": torch.tensor(step)}, {"step": step})
    assert names(tmp_path / "run") == ["step-000000010", "step-000002000"]
    step, read, meta = checkpoint.read_latest(tmp_path / "run")
    assert (step, int(read["s"]), meta) == (2000, 2000, {"step": 2000})


def test_a_damaged_newest_step_falls_back_with_a_warning(tmp_path, caplog):
    for step in (1, 2):
        checkpoint.write_step(tmp_path, step, {"s": torch.tensor(step)}, {})
    flip_last_byte(tmp_path / "step-000000002/tensors.safetensors")
    with caplog.at_level(logging.WARNING):
        assert checkpoint.read_latest(tmp_path)[0] == 1
    assert "damaged checkpoint" in caplog.text
    flip_last_byte(tmp_path / "step-000000001/tensors.safetensors")
    with pytest.raises(CheckpointError, match="none can be read"):
        checkpoint.read_latest(tmp_path)


def test_a_resumed_run_deletes_the_damaged_future(tmp_path):
    for step in (10, 20):
        checkpoint.write_step(tmp_path, step, {}, {"step": step})
    (tmp_path / ".step-000000020.new").mkdir()  # left by a kill
    checkpoint.write_step(tmp_path, 15, {}, {"step": 15})
    assert names(tmp_path) == ["step-000000010", "step-000000015"]
