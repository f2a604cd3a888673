"""Latency of a prefill by stage: clock, protocol, pairs, statistics, resources and limits."""
