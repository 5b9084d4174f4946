"""`params.yaml` and overrides -> frozen dataclasses; the only reader of YAML.

Every mistake is one `ConfigError` with the dotted path, what was found and what is allowed.
"""

from pipeline.params.builder import build
from pipeline.params.dotted import MAPPINGS, Raw, leaves, override, sections, subset
from pipeline.params.root import (
    EvaluateConfig,
    Params,
    SeedsConfig,
    from_raw,
    load_params,
    of_stages,
    seeds_config,
)
from pipeline.params.yaml_reader import load_raw, parse_set, parse_yaml

__all__ = [
    "Params",
    "EvaluateConfig",
    "SeedsConfig",
    "load_params",
    "from_raw",
    "seeds_config",
    "of_stages",
    "build",
    "MAPPINGS",
    "Raw",
    "load_raw",
    "parse_yaml",
    "parse_set",
    "leaves",
    "override",
    "subset",
    "sections",
]
