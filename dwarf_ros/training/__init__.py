"""Training of the network: losses, configuration, data, checkpoints and the loop."""
