"""What tests share: waiting for conditions, network namespaces, packets."""
