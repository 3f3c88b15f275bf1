"""The private names of aioquic that the QUIC agent leans on, and the check that they are there.

Rule 1: another version than the one named here is refused, not tried: what is private may change with any release.
Rule 2: a name that `quic_multipath` or `quic_connection` begin to use is added here.
"""

from __future__ import annotations

import logging
from functools import cache

import aioquic
from aioquic.quic import connection as aioquic_connection
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet_builder import QuicPacketBuilder

from testbed.agents.quic_frames import OBSERVED_ADDRESS_TYPES
from testbed.errors import MachineError

VERSION = "1.7.2"
FRAME_HANDLERS = "_QuicConnection__frame_handlers"
"""Of a connection: type -> (handler, epochs that it may come in)."""
OF_CONNECTION = (
    f"{FRAME_HANDLERS} _add_network_path _close_event _configuration _datagrams_pending _flush_builder "
    "_handle_path_challenge_frame _handle_path_response_frame _handshake_complete _handshake_confirmed _host_cid_seq "
    "_host_cids _is_client _local_active_connection_id_limit _loss _max_datagram_size _network_paths "
    "_parse_transport_parameters _payload_received _peer_cid_available _remote_active_connection_id_limit "
    "_replenish_connection_ids _retire_peer_cid _serialize_transport_parameters _state _use_reserved_peer_cid "
    "_write_connection_limits _write_path_challenge_frame"
).split()
OF_LOSS = ["_cc", "_pacer", "_rtt_initialized", "_rtt_latest", "_rtt_min", "_rtt_smoothed", "_rtt_variance"]
OF_BUILDER = ["_end_packet", "_packet", "_packets"]
OF_TLS = ["_peer_certificate"]


@cache
def check_aioquic() -> None:
    """Once a process. Raises MachineError unless aioquic is the version that this was written for, names included."""
    mend = f"pip install aioquic=={VERSION}"
    if aioquic.__version__ != VERSION:
        raise MachineError(f"aioquic {aioquic.__version__} is installed; the QUIC agent needs {VERSION}", mend=mend)
    connection = QuicConnection(configuration=QuicConfiguration())
    connection.connect(("", 0), now=0.0)
    builder = QuicPacketBuilder(host_cid=b"", peer_cid=b"", version=1, is_client=True, max_datagram_size=1200)
    owners: tuple[tuple[object, list[str]], ...] = (
        (connection, OF_CONNECTION),
        (connection._loss, OF_LOSS),
        (builder, OF_BUILDER),
        (connection.tls, OF_TLS),
        (aioquic_connection, ["PROBING_FRAME_TYPES"]),
    )
    missing = [name for owner, names in owners for name in names if not hasattr(owner, name)]
    if missing:
        raise MachineError(f"aioquic {VERSION} is not as published: it lacks {', '.join(missing)}", mend=mend)


def prepare_aioquic() -> None:
    """Two changes to aioquic as a whole; doing them twice does no harm."""
    # It warns of packets that make no sense; here they are what a network does.
    logging.getLogger("quic").setLevel(logging.CRITICAL)
    # OBSERVED_ADDRESS must not make a server migrate. aioquic reads this set by its name at every packet.
    probing: frozenset[int] = vars(aioquic_connection)["PROBING_FRAME_TYPES"]
    vars(aioquic_connection)["PROBING_FRAME_TYPES"] = probing | OBSERVED_ADDRESS_TYPES
