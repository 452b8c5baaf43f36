"""Latency, throughput, memory and energy of a localizer, per stage and per engine."""
