"""Packages of the senses: missed with one line; torchaudio works without its native library."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dreamer.modalities import libraries
from dreamer.types import ConfigError

# What torchaudio is made of, as far as its import goes.
PACKAGE = {
    "__init__.py": "from . import _extension\nfrom . import functional",
    "_extension/__init__.py": "{extension}",
    "functional.py": """
from torchaudio._extension import _IS_TORCHAUDIO_EXT_AVAILABLE, fail_if_no_align

@fail_if_no_align
def forced_align():
    return "aligned"
""",
}


def loaded():
    return [name for name in sys.modules if name.split(".")[0] == "torchaudio"]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a torchaudio with this native part."""

    def install(extension):
        for name, code in PACKAGE.items():
            path = tmp_path / "torchaudio" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code.replace("{extension}", extension))
        monkeypatch.syspath_prepend(tmp_path)
        for name in loaded():
            monkeypatch.delitem(sys.modules, name)

    yield install
    for name in loaded():
        del sys.modules[name]


@pytest.mark.parametrize(
    "error", ["OSError('libc10_cuda.so: not found')", "RuntimeError('different CUDA versions')"]
)
def test_torchaudio_goes_without_its_native_part(installed, error):
    installed(f"raise {error}")
    package = libraries.torchaudio()
    assert not package.functional._IS_TORCHAUDIO_EXT_AVAILABLE
    with pytest.raises(RuntimeError, match="torchaudio's forced_align needs its native library"):
        package.functional.forced_align()
    assert libraries.torchaudio() is package


def test_the_native_part_is_kept_where_it_loads(installed):
    installed("_IS_TORCHAUDIO_EXT_AVAILABLE = True\nfail_if_no_align = staticmethod")
    assert libraries.torchaudio().functional.forced_align() == "aligned"


def test_a_package_that_is_broken_otherwise_is_named(installed):
    installed("raise ImportError('no such\\nsymbol')")
    with pytest.raises(ConfigError) as caught:
        libraries.torchaudio()
    assert str(caught.value) == (
        "world_model.audio.features: found 'a broken package torchaudio'; allowed: "
        "waveform, or a package torchaudio that can be imported (no such symbol)"
    )


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("tokenizers", "observation of kind text: found 'no package tokenizers'; allowed: pip"),
        ("transformers", "world_model.text.model: found 'no package transformers'; allowed: own, "),
        ("torchaudio", "world_model.audio.features: found 'no package torchaudio'; allowed: wave"),
    ],
)
def test_what_is_missing_is_named_with_its_extra(monkeypatch, name, line):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError) as caught:
        getattr(libraries, name)()
    extra = "audio" if name == "torchaudio" else "text"
    assert str(caught.value).startswith(line)
    assert str(caught.value).endswith(f"pip install 'dreamer-pipeline[{extra}]'")


def test_an_agent_that_hears_waveforms_and_reads_nothing_imports_none():
    code = """
import sys
from builders import SMALL, audio, generator, vector_spec, world_config
from dreamer.world_model.model import MultimodalWorldModel
MultimodalWorldModel(vector_spec(3, discrete=(2,), audio=audio(64)), world_config(), 0)
found = {"torchaudio", "transformers", "tokenizers"} & sys.modules.keys()
assert not found, found
"""
    tests = str(Path(__file__).parents[2])
    path = os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = os.environ | {"PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", code], check=True, env=environ)


ORDERS = {
    "sound first": "libraries.torchaudio(); libraries.transformers()",
    "text first": "libraries.transformers(); libraries.torchaudio()",
}


@pytest.mark.parametrize("order", ORDERS)
def test_both_real_packages_work_together(order):
    for name in ("torchaudio", "transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    code = f"""
from dreamer.modalities import libraries
{ORDERS[order]}
from transformers import BertModel
import torchaudio
torchaudio.transforms.Resample(31400, 16000)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
