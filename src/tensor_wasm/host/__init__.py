"""What guests import, wired to a store: a file an interface. The hot one, launch, is not here: see ``dispatch``."""

from tensor_wasm.host.guest import Guest, HostServices, PublishedKernel
from tensor_wasm.host.linking import GuestImports, HostLinker
from tensor_wasm.host.stream import Stream

__all__ = ["Guest", "GuestImports", "HostLinker", "HostServices", "PublishedKernel", "Stream"]
