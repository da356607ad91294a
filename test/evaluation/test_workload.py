"""The workload of the networks, as published or by hand, and the limits of a machine."""

from __future__ import annotations

import pytest

from dwarf_ros.evaluation.workload import measure_ceilings, workload_of


def test_ceilings_are_those_of_a_computer():
    ceilings = measure_ceilings(size=256, repeats=2)
    assert 1e8 < ceilings.flops < 1e14
    assert 1e8 < ceilings.bytes_per_second < 1e13


def test_the_published_network_takes_what_is_known_of_it():
    pytest.importorskip("tensorflow")
    from dwarf_ros import network

    work = workload_of(network.build("dwarf", 384, 1280))
    assert work.macs == pytest.approx(236.7e9, rel=0.01)
    assert work.macs_of_parts["context"] == pytest.approx(115e9, rel=0.02)
    assert work.macs_of_parts["encoder"] == pytest.approx(11e9, rel=0.05)
    assert sum(work.macs_of_parts.values()) == work.macs


def test_matching_is_counted():
    pytest.importorskip("tensorflow")
    from dwarf_ros import network

    work = workload_of(network.build("dwarf_lite", 384, 1280))
    pixels, columns, channels = 24 * 80, 80, 128
    assert work.macs_of_parts["matching"] == pixels * (2 * columns + pixels) * channels
    assert sum(work.macs_of_parts.values()) == work.macs
