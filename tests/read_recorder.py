"""Records which parameters a stage reads, to compare them with the `params:` it declares."""

import dataclasses


def record(params, path="", reads=None):
    """Return a copy of a dataclass that notes every value read from it, and the set of notes.

    The copy is an instance of the same class, so that type checks, properties, `asdict` and pickle
    work on it. A section alone is no read, its values are; whoever pickles it reads all of it.
    """
    reads = set() if reads is None else reads
    cls, names = type(params), {field.name for field in dataclasses.fields(params)}

    def note(self, name):
        value = object.__getattribute__(self, name)
        if name in names and not dataclasses.is_dataclass(value):
            reads.add(f"{path}{name}")
        return value

    def plain(self):
        values = {name: getattr(self, name) for name in names}
        return _rebuild, (cls, values)

    recorder = type(
        cls.__name__, (cls,), {"__getattribute__": note, "__reduce_ex__": lambda s, _: plain(s)}
    )
    copy = object.__new__(recorder)
    for name in names:
        value = getattr(params, name)
        nested = dataclasses.is_dataclass(value)
        value = record(value, f"{path}{name}.", reads)[0] if nested else value
        object.__setattr__(copy, name, value)
    return copy, reads


def undeclared(reads, declared):
    """Return the reads that no declared name covers, `policy` covering `policy.clip_ratio`."""
    return {read for read in reads if not any(f"{read}.".startswith(f"{d}.") for d in declared)}


def unread(reads, declared):
    """Return the declared names below which nothing was read."""
    return {d for d in declared if not any(f"{read}.".startswith(f"{d}.") for read in reads)}


def _rebuild(cls, values):
    return cls(**values)
