"""The channel from a relay to a node: how it is opened and what keeps it up.

Not which nodes there are (`relay.discovery`) and not how each stands (`relay.peers`). gRPC reconnects by
itself, with backoff and jitter.
"""

import grpc

from palomar.errors import InvalidInputError
from palomar.tls import TlsFiles, channel_credentials, verify_name_option

OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    # Windows do not grow: a stream that is not read on would keep 4 MB of every node in gRPC's buffers.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 256 << 10),  # at 50 ms to a node still 5 MB/s
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a channel of its own shows the certificate of its own time
)


def open_channel(address: str, server_name: str, tls: TlsFiles | None, who: str) -> grpc.aio.Channel:
    """Open a channel to `address`; `server_name` is the name in its certificate, empty for plain text.

    Raises InvalidInputError naming `who`, or a file of `tls`, where the relay's certificate is not usable.
    """
    if not server_name:
        return grpc.aio.insecure_channel(address, options=OPTIONS)
    if tls is None:
        raise InvalidInputError(f"{who} wants TLS and this relay has no client certificate")
    options = (*OPTIONS, verify_name_option(server_name))
    return grpc.aio.secure_channel(address, channel_credentials(tls), options=options)
