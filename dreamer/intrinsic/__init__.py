"""Rewards an agent gives itself: curiosity and empowerment."""
