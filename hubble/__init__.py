"""The node's flow server: ingest of events, flow store, filters, the Observer service."""
