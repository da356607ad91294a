"""Stereo sequences, calibrations and ground truth on disk, and drives made to measure."""
