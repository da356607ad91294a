"""Processes around the node: player, recorder, demo, replay and the live viewer."""
