"""Estimates for whole data sets and recordings, written to folders."""
