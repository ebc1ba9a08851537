"""State shared by nodes (identities, addresses, nodes) behind one interface: a file store and etcd."""
