"""Experience: the replay buffer, its undo journal, and the dataset of episodes on disk."""

from dreamer.replay.buffer import ReplayConfig, SequenceReplayBuffer
from dreamer.replay.episodes import Episode, read_episodes, split_episodes, write_episodes
from dreamer.replay.rows import row_fields
from dreamer.replay.sampling import Sample

__all__ = [
    "Episode",
    "ReplayConfig",
    "Sample",
    "SequenceReplayBuffer",
    "read_episodes",
    "row_fields",
    "split_episodes",
    "write_episodes",
]
