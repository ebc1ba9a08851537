"""Per-node decisions: endpoints, identity, policy, IPAM, the API."""
