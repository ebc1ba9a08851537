"""The agent's HTTP API on a unix socket: `server` serves, `routes` answers, `views` says it in JSON."""
