"""STUN bytes <-> values: test vectors of RFC 5769, laws, and hostile input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.datagram import Endpoint
from testbed.traversal import stun
from testbed.traversal.stun import Kind, Message, Method
from testbed.traversal.stun_attributes import Attribute, ErrorCode, StunFormatError, Value

TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")

# RFC 5769 §2.1: a request with short-term credentials and FINGERPRINT.
REQUEST = bytes.fromhex(
    "00010058 2112a442 b7e7a701bc34d686fa87dfae"
    "80220010 5354554e207465737420636c69656e74"
    "00240004 6e0001ff"
    "80290008 932ff9b151263b36"
    "00060009 6576746a3a6836765920202000080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004 e57a3bcf"
)
# RFC 5769 §2.2: its answer, which maps to 192.0.2.1:32853. §2.3: the same over IPv6.
ANSWER = bytes.fromhex(
    "0101003c 2112a442 b7e7a701bc34d686fa87dfae"
    "8022000b 7465737420766563746f7220"
    "00200008 0001a147e112a643"
    "00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004 c07d4c96"
)
ANSWER_V6 = bytes.fromhex(
    "01010048 2112a442 b7e7a701bc34d686fa87dfae"
    "8022000b 7465737420766563746f7220"
    "00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014 a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004 c8fb0b4c"
)
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"


def test_the_rfc_request_reads_as_written_and_verifies() -> None:
    message = stun.decode(REQUEST)
    assert (message.kind, message.method) == (Kind.REQUEST, Method.BINDING)
    assert message.transaction_id == TRANSACTION
    assert message.text(Attribute.SOFTWARE) == "STUN test client"
    assert message.number(Attribute.PRIORITY) == 0x6E0001FF
    assert message.number(Attribute.ICE_CONTROLLED) == 0x932FF9B151263B36
    assert message.text(Attribute.USERNAME) == "evtj:h6vY"
    assert message.verify(PASSWORD)
    assert not message.verify(PASSWORD[:-1])


@pytest.mark.parametrize(
    ("data", "mapped"),
    [
        pytest.param(ANSWER, Endpoint("192.0.2.1", 32853), id="over IPv4"),
        pytest.param(ANSWER_V6, Endpoint("2001:db8:1234:5678:11:2233:4455:6677", 32853), id="over IPv6"),
    ],
)
def test_the_rfc_answer_maps_to_the_address_it_names(data: bytes, mapped: Endpoint) -> None:
    message = stun.decode(data)
    assert message.endpoint(Attribute.XOR_MAPPED_ADDRESS) == mapped
    assert message.verify(PASSWORD)


def test_long_term_credentials_of_the_rfc() -> None:
    # RFC 5769 §2.4: user "マトリックス", password "TheMatrIX" after preparation, realm "example.org".
    data = bytes.fromhex(
        "00010060 2112a442 78ad3433c6ad72c029da412e"
        "00060012 e3839ee38388e383aae38383e382afe382b90000"
        "0015001c 662f2f3439396b39353464364f4c33346f4c394653547679363473 41"
        "0014000b 6578616d706c652e6f726700"
        "00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666"
    )
    key = stun.long_term_key("マトリックス", "example.org", "TheMatrIX")
    assert stun.decode(data).verify(key)


def test_an_encoded_message_verifies_with_its_key_only() -> None:
    message = stun.request(Method.ALLOCATE, TRANSACTION, (Attribute.REQUESTED_TRANSPORT, 17))
    decoded = stun.decode(stun.encode(message, key=b"right"))
    assert decoded == message
    assert decoded.has_integrity
    assert decoded.verify(b"right")
    assert not decoded.verify(b"wrong")
    assert not stun.decode(stun.encode(message)).has_integrity


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"", "no STUN header", id="nothing"),
        pytest.param(REQUEST[:19], "no STUN header", id="cut in the header"),
        pytest.param(b"\x40" + REQUEST[1:], "no STUN header", id="the first two bits must be zero"),
        pytest.param(REQUEST[:4] + bytes(4) + REQUEST[8:], "no STUN header", id="another cookie"),
        pytest.param(REQUEST[:-4], "the header says", id="shorter than its header says"),
        pytest.param(REQUEST + bytes(4), "the header says", id="longer than its header says"),
        pytest.param(REQUEST[:-1] + b"\x00", "FINGERPRINT", id="a flipped bit under FINGERPRINT"),
        pytest.param(
            b"\x00\x01\x00\x04" + REQUEST[4:20] + b"\x00\x06\x00\x05", "0x0006 runs over", id="an attribute too long"
        ),
        pytest.param(
            b"\x00\x01\x00\x08" + REQUEST[4:20] + b"\x00\x06\x00\x01\xff\x00\x00\x00", "USERNAME", id="text not UTF-8"
        ),
        pytest.param(
            b"\x00\x01\x00\x08" + REQUEST[4:20] + b"\x00\x20\x00\x04\x00\x03\x00\x00", "family 3", id="unknown family"
        ),
        pytest.param(
            b"\x00\x01\x00\x08" + REQUEST[4:20] + b"\x00\x09\x00\x04\x00\x00\x02\x00", "error code 200", id="error 200"
        ),
        pytest.param(
            b"\x00\x01\x00\x08" + REQUEST[4:20] + b"\x00\x08\x00\x04\x00\x00\x00\x00", "20 bytes", id="short integrity"
        ),
    ],
)
def test_malformed_bytes_are_refused_by_name(data: bytes, says: str) -> None:
    with pytest.raises(StunFormatError, match=says):
        stun.decode(data)


def test_what_must_be_understood_and_is_not_is_named() -> None:
    message = Message(Kind.REQUEST, Method.BINDING, TRANSACTION, ((0x7001, b"x"), (0xF001, b"y")))
    decoded = stun.decode(stun.encode(message))
    assert decoded.unknown_required == (0x7001,)
    assert decoded == message


def test_what_follows_the_integrity_is_not_believed() -> None:
    message = stun.request(Method.BINDING, TRANSACTION)
    signed = stun.encode(message, key=b"k", fingerprint=False)
    late = bytearray(signed + b"\x00\x25\x00\x00")  # USE-CANDIDATE, appended by somebody on the way
    late[3] += 4
    decoded = stun.decode(bytes(late))
    assert decoded.verify(b"k")
    assert not decoded.has(Attribute.USE_CANDIDATE)


def test_a_value_of_the_wrong_type_is_the_callers_fault() -> None:
    with pytest.raises(TypeError, match="0x0006 cannot hold 5"):
        stun.encode(stun.request(Method.BINDING, TRANSACTION, (Attribute.USERNAME, 5)))


endpoints = st.builds(Endpoint, st.ip_addresses().map(str).filter(lambda host: "%" not in host), st.integers(0, 65535))
values: dict[Attribute, st.SearchStrategy[Value]] = {
    **dict.fromkeys(
        (
            Attribute.MAPPED_ADDRESS,
            Attribute.XOR_MAPPED_ADDRESS,
            Attribute.XOR_PEER_ADDRESS,
            Attribute.XOR_RELAYED_ADDRESS,
            Attribute.OTHER_ADDRESS,
            Attribute.RESPONSE_ORIGIN,
            Attribute.ALTERNATE_SERVER,
        ),
        endpoints,
    ),
    **dict.fromkeys(
        (Attribute.USERNAME, Attribute.REALM, Attribute.NONCE, Attribute.SOFTWARE),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    ),
    **dict.fromkeys((Attribute.DATA, Attribute.PADDING, Attribute.RESERVATION_TOKEN), st.binary(max_size=60)),
    **dict.fromkeys((Attribute.CHANGE_REQUEST, Attribute.LIFETIME, Attribute.PRIORITY), st.integers(0, 2**32 - 1)),
    **dict.fromkeys((Attribute.CHANNEL_NUMBER, Attribute.RESPONSE_PORT), st.integers(0, 65535)),
    **dict.fromkeys((Attribute.REQUESTED_TRANSPORT, Attribute.EVEN_PORT), st.integers(0, 255)),
    **dict.fromkeys((Attribute.REQUESTED_ADDRESS_FAMILY, Attribute.ADDITIONAL_ADDRESS_FAMILY), st.integers(0, 255)),
    **dict.fromkeys((Attribute.ICE_CONTROLLED, Attribute.ICE_CONTROLLING), st.integers(0, 2**64 - 1)),
    **dict.fromkeys((Attribute.USE_CANDIDATE, Attribute.DONT_FRAGMENT), st.none()),
    Attribute.ERROR_CODE: st.builds(ErrorCode, st.integers(300, 699), st.text(st.characters(codec="ascii"))),
    Attribute.UNKNOWN_ATTRIBUTES: st.lists(st.integers(0, 65535), max_size=5).map(tuple),
}


def attribute_pairs() -> st.SearchStrategy[tuple[int, Value]]:
    return st.sampled_from(list(values)).flatmap(lambda a: st.tuples(st.just(int(a)), values[a]))


messages = st.builds(
    Message,
    st.sampled_from(Kind),
    st.integers(0, 0xFF),  # RFC 9443 leaves STUN the first bytes 0 to 3, which is these methods
    st.binary(min_size=12, max_size=12),
    st.lists(attribute_pairs(), max_size=6).map(tuple),
)


def test_every_attribute_has_a_generator() -> None:
    assert set(values) == set(Attribute)


@given(messages, st.none() | st.binary(min_size=1, max_size=20), st.booleans())
def test_what_is_encoded_decodes_to_the_same(message: Message, key: bytes | None, fingerprint: bool) -> None:
    decoded = stun.decode(stun.encode(message, key=key, fingerprint=fingerprint))
    assert decoded == message
    assert decoded.verify(key or b"") == (key is not None)


@given(st.binary(max_size=200))
def test_hostile_bytes_decode_or_are_refused_by_name(data: bytes) -> None:
    header = len(data).to_bytes(2, "big")
    for candidate in (data, b"\x00\x01" + header + REQUEST[4:20] + data):
        try:
            stun.decode(candidate)
        except StunFormatError:
            continue


@given(st.integers(0, len(REQUEST) - 9), st.integers(1, 255))
def test_one_changed_byte_before_the_fingerprint_never_passes(position: int, change: int) -> None:
    data = bytearray(REQUEST)
    data[position] ^= change
    with pytest.raises(StunFormatError):
        stun.decode(bytes(data))
