"""Behaviour learned in imagination: actor, critic, PPO and REINFORCE objectives."""
