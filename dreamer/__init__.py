"""DreamerV3 agents as a library: Gymnasium environments and tensors in, actions and metrics out."""
