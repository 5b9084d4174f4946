"""The world model: RSSM, heads, losses and the only imagination loop."""
