"""Synthetic stereo scenes and drives with exact ground truth."""
