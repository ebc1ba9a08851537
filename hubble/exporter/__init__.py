"""Export of flows and flow metrics over OTLP, from the flow store to a collector."""
