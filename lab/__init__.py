"""A whole cluster on one machine, in network namespaces."""
