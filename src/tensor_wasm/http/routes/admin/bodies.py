"""What bodies of the operator's requests may be."""

#: They are decoded on the event loop: as many bytes take less than a millisecond.
BODY_BYTES_MAX = 64 * 1024
