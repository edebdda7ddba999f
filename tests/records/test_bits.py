"""Booleans as text."""

from ablations.records.bits import pack_bits, unpack_bits


def test_bits_are_packed_and_unpacked():
    values = [True, False, False, True, True, False, True, False, True]
    assert pack_bits(values) == "moA="  # 10011010 1 and seven zeros: 9a 80
    assert unpack_bits("moA=", 9).tolist() == values
