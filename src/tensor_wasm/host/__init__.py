"""What guests import, wired to a store: a file an interface. The hot one, launch, is not here: see ``dispatch``."""

from tensor_wasm.host.guest import Guest, HostServices
from tensor_wasm.host.linking import GuestImports, HostLinker

__all__ = ["Guest", "GuestImports", "HostLinker", "HostServices"]
