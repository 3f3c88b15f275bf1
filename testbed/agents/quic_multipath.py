"""A QUIC connection over many paths: the half of the adapter over aioquic that knows no extension.

Rule 1: to aioquic an address is any value. Here it is a `Path`, so that own addresses count too, and the relay is one
        path among others.
Rule 2: probes of a path that is not in use are nobody's congestion: they are paid for one by one, and neither lost nor
        acknowledged for the congestion controller.
Rule 3: the server goes where the client's non-probing packets come from (RFC 9000 §9.3). The client moves when it is
        told to, to the path that it is told, never because a path has validated.
Rule 4: what is decided, and why, stands in `traversal` (`quic_paths`, `quic_peer`): here is only the mechanism.

What aioquic 1.7.2 does by itself, and what is done here instead:
    at most 3 × the bytes received go to a path that is not validated      each probe is given its 1200 bytes
    lost probes shrink the congestion window                               they are not counted
    RTT and window survive a migration                                     they begin anew (RFC 9000 §9.4)
    the client migrates to each path that validates                        `migrate`
    a client drops what comes from addresses that it does not know         `is_admitting`, once the packet decrypts
    `datagrams_to_send` before the first packet raises IndexError          `transmit` sends nothing
    it stops at a packet that is full of frames other than streams         `transmit` goes on
    8 connection ids and 8 paths                                           16 of each
    5 challenges of a path are remembered: less than a long RTT's worth    64
"""

from __future__ import annotations

import os
from collections import deque
from typing import cast

from aioquic._buffer import Buffer
from aioquic.quic import events as aioquic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.base import create_congestion_control
from aioquic.quic.connection import (
    END_STATES,
    QuicConnection,
    QuicConnectionId,
    QuicConnectionState,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketPacer

from testbed.agents.quic_private import prepare_aioquic
from testbed.agents.quic_tls import DATAGRAM_SIZE
from testbed.traversal.quic_happenings import (
    Answered,
    Challenged,
    Completed,
    Happening,
    Moved,
    Path,
    Received,
    Terminated,
)
from testbed.units import nanoseconds, seconds

PATH_LIMIT = 16
"""Paths at once, each with a connection id of its own (RFC 9000 §9.5): our `active_connection_id_limit`."""
CHALLENGES_REMEMBERED = 64

prepare_aioquic()


class MultipathConnection(QuicConnection):
    """Times are integer nanoseconds, as everywhere but inside aioquic."""

    def __init__(self, configuration: QuicConfiguration, original_destination: bytes | None = None) -> None:
        """`original_destination`: for a server, the connection id that the client's first packet went to."""
        super().__init__(configuration=configuration, original_destination_connection_id=original_destination)
        self._local_active_connection_id_limit = PATH_LIMIT
        self._sent_at: dict[bytes, int] = {}
        self._now = 0
        self._is_genuine = False
        self._happenings: list[Happening] = []
        self.is_admitting = False
        """Whether a client takes packets from addresses that it does not know, if they are the other end's."""

    # ---- what is known

    @property
    def active(self) -> Path | None:
        """The path in use; None before a server's first packet."""
        return cast("Path", self._network_paths[0].addr) if self._network_paths else None

    @property
    def is_begun(self) -> bool:
        """Whether a packet of the other end was understood."""
        return self._state is not QuicConnectionState.FIRSTFLIGHT

    @property
    def is_open(self) -> bool:
        """Whether neither end has closed the connection."""
        return self._close_event is None and self._state not in END_STATES

    @property
    def is_confirmed(self) -> bool:
        """Whether the handshake is confirmed: a client may migrate only then (RFC 9000 §9)."""
        return self._handshake_confirmed

    def owns(self, destination: bytes) -> bool:
        """Whether a packet to this connection id is for this connection."""
        return any(entry.cid == destination for entry in self._host_cids)

    # ---- the contract, with paths for addresses

    def dial(self, path: Path, now: int) -> None:
        """Client: begin the handshake by *path*."""
        self._now = now
        self.connect(path, seconds(now))

    def receive(self, data: bytes, path: Path, now: int) -> None:
        """A datagram came by *path*."""
        self._now, self._is_genuine = now, False
        stranger, before = None, self.active
        if self._is_client and self._entry(path) is None:
            # A packet that is the other end's makes a peer-reflexive path; a replayed or forged one leaves nothing.
            size = self._configuration.connection_id_length
            if data[0] & 0x80 or not (self.is_admitting and self.is_confirmed and self.owns(data[1 : 1 + size])):
                return
            stranger = QuicNetworkPath(path)
            self._network_paths.append(stranger)
        super().receive_datagram(data, path, seconds(now))
        if stranger is not None:
            self._network_paths.remove(stranger)
            if self._is_genuine:
                self._add_network_path(stranger)
        self._collect(path, before)

    def timer(self) -> int | None:
        """When `fire` is due: rounded up, so that aioquic finds its timer due in its own arithmetic."""
        due = self.get_timer() if self._network_paths else None
        return nanoseconds(due) + 1000 if due is not None else None

    def fire(self, now: int) -> None:
        """The timer is due."""
        self._now, before = now, self.active
        self.handle_timer(seconds(now))
        self._collect(before, before)

    def transmit(self, now: int) -> list[tuple[bytes, Path]]:
        """Datagrams and the paths that they go by."""
        self._now = now
        sent: list[tuple[bytes, Path]] = []
        while self._network_paths:
            more = self.datagrams_to_send(seconds(now))
            sent += more
            if not more or not self._has_more:
                break
        return sent

    def happenings(self) -> list[Happening]:
        """What happened since the last call, in order."""
        happenings, self._happenings = self._happenings, []
        return happenings

    @property
    def _has_more(self) -> bool:
        return bool(self._datagrams_pending)

    # ---- paths

    def probe(self, path: Path) -> bool:
        """Send one PATH_CHALLENGE by *path* with the next datagrams. False where that need not be (it is validated or
        in use) or cannot be: the other end has given us no connection id to spare.
        """
        if not self._handshake_complete or not self.is_open or path == self.active:
            return False
        entry = self._entry(path)
        if entry is None and self._peer_cid_available:
            entry = QuicNetworkPath(path)
            self._add_network_path(entry)
        if entry is None or entry.is_validated or not (entry.peer_cid or self._peer_cid_available):
            return False
        if entry.peer_cid is None:
            entry.peer_cid = self._peer_cid_available.pop(0)
        entry.local_challenge_sent = False
        # The limit of RFC 9000 §8 keeps a stranger from being flooded. This probe is one that the other end asked
        # for, and rounds bound how many there are: pay for exactly one.
        entry.bytes_received = max(entry.bytes_received, -(-(entry.bytes_sent + DATAGRAM_SIZE) // 3))
        return True

    def cancel_probes(self) -> None:
        """What is queued and has not left will not leave."""
        for entry in self._network_paths[1:]:
            entry.local_challenge_sent = True

    def migrate(self, path: Path) -> None:
        """Client: use this validated path from now on; the next non-probing packet takes the server along."""
        entry = self._entry(path)
        if not self._is_client or not self.is_confirmed or entry is None or not entry.is_validated:
            raise ValueError(f"{path} is no path to migrate to")
        if entry.peer_cid is not None:
            self._use_reserved_peer_cid(entry)
        self._network_paths.remove(entry)
        self._network_paths.insert(0, entry)
        self._begin_path()

    # ---- inside

    def _collect(self, path: Path | None, before: Path | None) -> None:
        while (event := self.next_event()) is not None:
            match event:
                case aioquic_events.HandshakeCompleted():
                    self._happenings.append(Completed())
                case aioquic_events.DatagramFrameReceived(data=data) if path is not None:
                    self._happenings.append(Received(path, data))
                case aioquic_events.ConnectionTerminated(reason_phrase=reason):
                    self._happenings.append(Terminated(reason))
        active = self.active
        if before is not None and active is not None and active != before:
            self._begin_path()
            self._happenings.append(Moved(active, self._network_paths[0].is_validated))

    def _entry(self, path: Path) -> QuicNetworkPath | None:
        return next((entry for entry in self._network_paths if entry.addr == path), None)

    def _begin_path(self) -> None:
        """RFC 9000 §9.4: a new path has its own RTT and its own congestion window."""
        loss, in_flight = self._loss, self._loss.bytes_in_flight
        algorithm = self._configuration.congestion_control_algorithm
        loss._cc = create_congestion_control(algorithm, max_datagram_size=self._max_datagram_size)
        loss._cc.bytes_in_flight = in_flight
        loss._pacer = QuicPacketPacer(max_datagram_size=self._max_datagram_size)
        loss._rtt_initialized, loss._rtt_min = False, float("inf")
        loss._rtt_latest = loss._rtt_smoothed = loss._rtt_variance = 0.0

    # ---- instead of aioquic's own

    def _add_network_path(self, network_path: QuicNetworkPath) -> None:
        if len(self._network_paths) >= PATH_LIMIT:
            others = self._network_paths[1:]
            evicted = next((entry for entry in others if not entry.is_validated), others[0])
            self._network_paths.remove(evicted)
            if evicted.peer_cid is not None:
                self._retire_peer_cid(evicted.peer_cid)  # the other end then issues another
        network_path.local_challenges = deque(network_path.local_challenges, maxlen=CHALLENGES_REMEMBERED)
        network_path.local_challenge_sent = True  # `probe` says when
        self._network_paths.append(network_path)

    def _replenish_connection_ids(self) -> None:
        size = self._configuration.connection_id_length
        while len(self._host_cids) < min(PATH_LIMIT, self._remote_active_connection_id_limit):
            self._host_cids.append(QuicConnectionId(os.urandom(size), self._host_cid_seq, os.urandom(16)))
            self._host_cid_seq += 1

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        self._is_genuine = True  # it decrypts, and is no duplicate
        return super()._payload_received(context, plain, crypto_frame_required)

    def _handle_path_challenge_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_path_challenge_frame(context, frame_type, buf)
        self._happenings.append(Challenged(context.network_path.addr))

    def _handle_path_response_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        data = buf.pull_bytes(8)
        entry = next((entry for entry in self._network_paths if data in entry.local_challenges), None)
        if entry is None:
            return  # RFC 9000 §19.18: its challenge may be forgotten
        rtt = self._now - self._sent_at.get(data, self._now)
        for challenge in entry.local_challenges:
            self._sent_at.pop(challenge, None)
        entry.is_validated = True
        entry.local_challenges.clear()
        self._happenings.append(Answered(entry.addr, context.network_path.addr, rtt))

    def _write_path_challenge_frame(self, builder: QuicPacketBuilder, network_path: QuicNetworkPath) -> None:
        super()._write_path_challenge_frame(builder, network_path)
        self._sent_at[network_path.local_challenges[-1]] = self._now
        if len(self._sent_at) > PATH_LIMIT * CHALLENGES_REMEMBERED:
            del self._sent_at[next(iter(self._sent_at))]

    def _flush_builder(
        self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, peer_cid: bytes, now: float
    ) -> list[tuple[bytes, Path]]:
        if network_path is not self._network_paths[0]:
            if builder._packet is not None:
                builder._end_packet()
            for packet in builder._packets:
                packet.in_flight = packet.is_ack_eliciting = False
        return super()._flush_builder(builder, network_path, peer_cid, now)
