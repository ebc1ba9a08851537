"""What can be wrong when an endpoint is added, found or deleted."""

from palomar.errors import PermanentError


class EndpointExistsError(PermanentError):
    """The container name or the namespace has an endpoint already."""

    def __init__(self, what: str, endpoint_id: int) -> None:
        """Name what is taken and by which endpoint."""
        self.endpoint_id = endpoint_id
        super().__init__(
            f"{what} has endpoint {endpoint_id} already: `palomar endpoint delete {endpoint_id}` frees it"
        )


class EndpointNotFoundError(PermanentError):
    """No endpoint is named like this."""

    def __init__(self, name: str) -> None:
        """Keep the name that was asked for."""
        self.name = name
        super().__init__(f"no endpoint {name}: `palomar endpoint list` shows those of this node")


class EndpointIdsExhaustedError(PermanentError):
    """Every endpoint id is taken."""

    def __init__(self) -> None:
        """Say how many there are."""
        super().__init__("all 65535 endpoint ids of this node are in use: delete endpoints")
