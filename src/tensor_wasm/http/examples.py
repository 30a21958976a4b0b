"""Values that the examples of several operations share."""

FUNCTION_ID = "7d9f6ac0-d5bb-4b7e-92d0-8d5f9f6c1a10"
INSTANCE_ID = "0b0f3c1e-6a55-4c1c-9a43-2f7c1f0d8e21"
JOB_ID = "4e5c8d1b-7f0a-4b39-8c6e-2d9a1f3b5c70"
SNAPSHOT_ID = "3f6c2b0e-8d7a-4e51-9c3d-5a1e7b9f0c42"
TOKEN_ID = "c2a4b1de-93e7-4f0a-8d57-6e1b2a3c4d5e"  # noqa: S105 - not a secret
#: A moment, in seconds since 1970.
MOMENT = 1767225600.0
#: The smallest module there is: nothing in it.
EMPTY_MODULE = b"\0asm\1\0\0\0"
EMPTY_MODULE_B64 = "AGFzbQEAAAA="
#: BLAKE3 of that module.
EMPTY_MODULE_DIGEST = "0d66d411a21e80d93afa1487b002a1867432c04ba1d08dc790d259639f6a69c4"
