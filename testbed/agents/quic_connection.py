"""A QUIC connection that speaks address discovery and NAT traversal: the other half of the adapter over aioquic.

Rule 1: frames go in the direction that the drafts say. One that comes in the wrong direction, or that was not asked
        for, is a PROTOCOL_VIOLATION and ends the connection.
Rule 2: OBSERVED_ADDRESS is sent on every new path, the handshake's included, if the other end wants it; with each
        probe until one was acknowledged; and again on the same path when it is lost.
Rule 3: ADD_ADDRESS and REMOVE_ADDRESS are sent until they arrive, PUNCH_ME_NOW only while its round is the last one.
Rule 4: a round that is not higher than the last one changes nothing; a higher one cancels the probes of the older.

The extension frames of the path in use are written where aioquic writes its own limits, once a packet; those of a
probe behind its PATH_CHALLENGE or PATH_RESPONSE, in the same packet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.buffer import size_uint_var
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnectionError, QuicNetworkPath, QuicReceiveContext
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicPacketBuilderStop
from aioquic.quic.recovery import QuicPacketSpace

from testbed.agents import quic_frames as frames
from testbed.agents.quic_frames import Discovery, Frame, FrameFormatError
from testbed.agents.quic_multipath import MultipathConnection
from testbed.agents.quic_private import FRAME_HANDLERS
from testbed.agents.quic_tls import fingerprint_of
from testbed.datagram import Endpoint
from testbed.traversal.candidates import MAX_CANDIDATES
from testbed.traversal.quic_connection import PAIR_LIMIT
from testbed.traversal.quic_happenings import CandidateAdded, Path, Punched

ONE_RTT = frozenset([tls.Epoch.ONE_RTT])


@dataclass(slots=True)
class _Observation:
    """The two directions of address discovery on one path."""

    is_told: bool = False
    """Whether the other end was sent ours, and it is not known to be lost."""
    is_acknowledged: bool = False
    last: int = -1
    """The highest sequence number that the other end's had."""
    address: Endpoint | None = None


class TraversalConnection(MultipathConnection):
    """One connection and both extensions."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        original_destination: bytes | None = None,
        *,
        discovery: Discovery = Discovery.BOTH,
        pair_limit: int = PAIR_LIMIT,
    ) -> None:
        """`discovery`, `pair_limit`: what our transport parameters say."""
        super().__init__(configuration, original_destination)
        handlers = cast("dict[int, Any]", vars(self)[FRAME_HANDLERS])
        handlers.update(dict.fromkeys(frames.FRAME_TYPES, (self._handle_extension_frame, ONE_RTT)))
        self._discovery, self._pair_limit = discovery, pair_limit
        self._observations: dict[Path, _Observation] = {}
        self._pending: deque[Frame] = deque()
        self._sequence = self._observed = self._round = self._punches = 0
        self.candidates: dict[int, Endpoint] = {}
        """The server's by their number: what it added, or what the client was told."""
        self.peer_discovery: Discovery | None = None
        """What the other end says of address discovery; None where it says nothing."""
        self.peer_pair_limit: int | None = None
        """How many pairs the server probes in a round; at a server its own. None where NAT traversal is not spoken."""

    # ---- what is known

    @property
    def peer_fingerprint(self) -> str | None:
        """Of the server's certificate, at the client, once the handshake is complete."""
        certificate = self.tls._peer_certificate
        return fingerprint_of(certificate) if certificate is not None else None

    def observed(self, path: Path) -> Endpoint | None:
        """Our own address as the other end sees it on this path."""
        observation = self._observations.get(path)
        return observation.address if observation is not None else None

    # ---- candidates and rounds

    def add_candidate(self, address: Endpoint) -> None:
        """Server: tell the client of a candidate."""
        if address not in self.candidates.values():
            self.candidates[self._sequence] = address
            self._pending.append(frames.AddAddress(self._sequence, address))
            self._sequence += 1

    def remove_candidate(self, address: Endpoint) -> None:
        """Server: a candidate is gone."""
        for number in [number for number, known in self.candidates.items() if known == address]:
            del self.candidates[number]
            self._pending.append(frames.RemoveAddress(number))

    def punch(self, number: int, paired_with: int, address: Endpoint) -> bool:
        """Client: ask for a probe of our *address* from the server's candidate of that number, in round *number*.
        False once the round has as many pairs as the server takes.
        """
        if number > self._round:
            self._begin_round(number)
        if self._punches >= (self.peer_pair_limit or 0):
            return False
        self._punches += 1
        self._pending.append(frames.PunchMeNow(number, paired_with, address))
        return True

    def _begin_round(self, number: int) -> None:
        self._round, self._punches = number, 0
        self._pending = deque(frame for frame in self._pending if not isinstance(frame, frames.PunchMeNow))
        self.cancel_probes()

    # ---- transport parameters

    def _serialize_transport_parameters(self) -> bytes:
        limit = b"" if self._is_client else frames.encode_varint(self._pair_limit)
        discovery = frames.encode_varint(self._discovery)
        return (
            super()._serialize_transport_parameters()
            + frames.encode_parameter(frames.NAT_TRAVERSAL_PARAMETER, limit)
            + frames.encode_parameter(frames.ADDRESS_DISCOVERY_PARAMETER, discovery)
        )

    def _parse_transport_parameters(self, data: bytes, from_session_ticket: bool = False) -> None:
        super()._parse_transport_parameters(data, from_session_ticket)
        try:
            parameters = frames.decode_parameters(data)
            limit = parameters.get(frames.NAT_TRAVERSAL_PARAMETER)
            if limit is not None:
                self.peer_pair_limit = self._read_limit(limit)
            discovery = parameters.get(frames.ADDRESS_DISCOVERY_PARAMETER)
            if discovery is not None:
                self.peer_discovery = Discovery(frames.decode_integer(discovery))
        except ValueError as error:
            code = QuicErrorCode.TRANSPORT_PARAMETER_ERROR
            raise QuicConnectionError(code, QuicFrameType.CRYPTO, str(error)) from error

    def _read_limit(self, value: bytes) -> int:
        if not self._is_client:
            if value:
                raise FrameFormatError("a client's NAT traversal parameter is empty")
            return self._pair_limit
        limit = frames.decode_integer(value)
        if limit < 1:
            raise FrameFormatError("a server's NAT traversal parameter is at least one")
        return limit

    # ---- receiving

    def _handle_extension_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        try:
            frame, length = frames.decode_body(frame_type, buf.data_slice(start, buf.capacity))
        except FrameFormatError as error:
            code = QuicErrorCode.FRAME_ENCODING_ERROR
            raise QuicConnectionError(code, frame_type, str(error)) from error
        buf.seek(start + length)
        is_for_us = isinstance(frame, frames.PunchMeNow) is not self._is_client and self.peer_pair_limit is not None
        match frame:
            case frames.ObservedAddress(sequence, address) if self._discovery.wants:
                observation = self._observation(context.network_path.addr)
                if sequence > observation.last:
                    observation.last, observation.address = sequence, address
            case frames.AddAddress(sequence, address) if is_for_us:
                if sequence not in self.candidates and len(self.candidates) < MAX_CANDIDATES:
                    self.candidates[sequence] = address
                    self._happenings.append(CandidateAdded(address))
            case frames.RemoveAddress(sequence) if is_for_us:
                self.candidates.pop(sequence, None)
            case frames.PunchMeNow() if is_for_us:
                self._punched(frame)
            case _:
                code = QuicErrorCode.PROTOCOL_VIOLATION
                raise QuicConnectionError(code, frame_type, f"unexpected {type(frame).__name__}")

    def _punched(self, frame: frames.PunchMeNow) -> None:
        if frame.round < self._round or frame.paired_with not in self.candidates:
            return
        if frame.round > self._round:
            self._begin_round(frame.round)
        if self._punches < self._pair_limit:
            self._punches += 1
            self._happenings.append(Punched(frame.round, self.candidates[frame.paired_with], frame.address))

    # ---- sending

    @property
    def _has_more(self) -> bool:
        return bool(self._pending) or super()._has_more

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        path = self._network_paths[0].addr
        if not self._observation(path).is_told:
            self._observe(builder, path)
        while self._pending:
            self._write_frame(builder, self._pending[0], self._on_frame_delivery, (self._pending[0],))
            self._pending.popleft()
        super()._write_connection_limits(builder, space)

    def _flush_builder(
        self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, peer_cid: bytes, now: float
    ) -> list[tuple[bytes, Path]]:
        is_probe = network_path is not self._network_paths[0] and builder._packet is not None
        if is_probe and not builder.packet_is_empty and not self._observation(network_path.addr).is_acknowledged:
            with suppress(QuicPacketBuilderStop):  # no room beside the probe: the next one brings it
                self._observe(builder, network_path.addr)
        return super()._flush_builder(builder, network_path, peer_cid, now)

    def _add_network_path(self, network_path: QuicNetworkPath) -> None:
        super()._add_network_path(network_path)
        paths = {entry.addr for entry in self._network_paths}
        self._observations = {path: kept for path, kept in self._observations.items() if path in paths}

    def _observation(self, path: Path) -> _Observation:
        return self._observations.setdefault(path, _Observation())

    def _observe(self, builder: QuicPacketBuilder, path: Path) -> None:
        if self._discovery.provides and self.peer_discovery is not None and self.peer_discovery.wants:
            frame = frames.ObservedAddress(self._observed, path.remote)
            self._write_frame(builder, frame, self._on_observation_delivery, (path,))
            self._observation(path).is_told = True
            self._observed += 1

    def _write_frame(
        self, builder: QuicPacketBuilder, frame: Frame, handler: Callable[..., None], arguments: tuple[object, ...]
    ) -> None:
        body, frame_type = frames.encode_body(frame), frames.type_of(frame)
        buf = builder.start_frame(frame_type, size_uint_var(frame_type) + len(body), handler, arguments)
        buf.push_bytes(body)

    def _on_observation_delivery(self, delivery: QuicDeliveryState, path: Path) -> None:
        observation = self._observation(path)
        if delivery is QuicDeliveryState.ACKED:
            observation.is_told = observation.is_acknowledged = True
        elif not observation.is_acknowledged:
            observation.is_told = False

    def _on_frame_delivery(self, delivery: QuicDeliveryState, frame: Frame) -> None:
        is_stale = isinstance(frame, frames.PunchMeNow) and frame.round < self._round
        if delivery is QuicDeliveryState.LOST and not is_stale:
            self._pending.append(frame)
