"""The device's restarts: who learns that everything on it is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tensor_wasm.node.model import DeviceRestart

if TYPE_CHECKING:
    from tensor_wasm.device.cuda.supervisor import WorkerEnd


class Restarts:
    """Tells of the restarts of a ``device``. ``look_soon`` has guests that lost what they had on it end soon.

    ``listener`` is told of each, on a thread of the device's; None while nobody wants to know.
    """

    def __init__(self, device: str, look_soon: Callable[[], None]) -> None:
        self._device = device
        self._look_soon = look_soon
        self.listener: Callable[[DeviceRestart], None] | None = None

    def note(self, end: WorkerEnd) -> None:
        """The worker that had the device has ended."""
        self._look_soon()
        if self.listener is None:
            return
        offender = end.offender
        tenant = None if offender is None else offender.tenant
        self.listener(
            DeviceRestart(
                device=self._device,
                reason=end.reason,
                offender=tenant,
                kernel=None if offender is None else offender.kernel,
                victims=tuple(victim for victim in end.victims if victim != tenant),
            )
        )
