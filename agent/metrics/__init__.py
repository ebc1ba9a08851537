"""`/metrics`: the agent's, the datapath's and the flows' counters for Prometheus.

A registry of our own with two kinds of metrics: those observed as things happen (`registry.py`), and those
read from the parts when they are asked for (`collector.py` and a module for each part). Names and labels are
the field's (`cilium_*`, `hubble_*`) where it has them, `palomar_*` otherwise; docs/metrics.md lists them all.
"""
