"""Models: names that tenants know, each bound to a function and an export of it."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass

from tensor_wasm.errors import InvalidName, ModelNotFound, NotFound, QuotaExceeded, RequestError
from tensor_wasm.node.exports import choose_export
from tensor_wasm.node.functions import Functions
from tensor_wasm.node.modules import Modules
from tensor_wasm.store import FunctionRecord, ModelRecord, ModelStore

#: What names look like. Those of OpenAI's clients have slashes and colons too.
MODEL_NAME_PATTERN = "[A-Za-z0-9._:/-]{1,128}"
#: Most names of one tenant.
MODELS_MAX = 1000

_NAME = re.compile(MODEL_NAME_PATTERN, re.ASCII)


@dataclass(frozen=True, slots=True)
class Model:
    """A name and what answers it. ``function_name`` is None when the function was deleted: then nothing does.

    ``created_at`` is in seconds since 1970; ``digest`` the BLAKE3 (hex) of the function's module.
    """

    name: str
    tenant: int
    function_id: str
    export: str | None
    created_at: float
    function_name: str | None
    digest: str | None


class Models:
    """The models of a node. :meth:`resolve`, :meth:`list` and :meth:`show` touch no disk."""

    def __init__(self, store: ModelStore, functions: Functions, modules: Modules) -> None:
        self._store = store
        self._functions = functions
        self._modules = modules
        self._lock = threading.Lock()
        self._records = {(record.tenant, record.name): record for record in store.all()}

    def bind(self, tenant: int, name: str, function_id: str, export: str | None = None) -> Model:
        """Have a function of the tenant's answer a name, in the place of what did before. On disk when this returns.

        Raises :class:`InvalidName`, :class:`NotFound` for a function that the tenant has not,
        :class:`~tensor_wasm.errors.MissingExport`, :class:`RequestError` for an export with parameters, and
        :class:`QuotaExceeded` for one name too many.
        """
        if not _NAME.fullmatch(name):
            raise InvalidName("a model's name has 1 to 128 characters of A-Z a-z 0-9 . _ : / -")
        function = self._functions.find(function_id, tenant)
        chosen = choose_export(self._modules.ready(function.digest), export)
        if chosen.parameters:
            raise RequestError("the export takes parameters: one that answers a model reads its input and takes none")
        record = ModelRecord(tenant, name, function_id, export, time.time())
        with self._lock:
            if (tenant, name) not in self._records and self._count(tenant) >= MODELS_MAX:
                raise QuotaExceeded(f"the tenant has {MODELS_MAX} models, as many as it may: delete one first")
            self._store.put(record)
            self._records[tenant, name] = record
        return self._view(record)

    def unbind(self, tenant: int, name: str) -> None:
        """Forget a name; invocations that answer it go on. Raises :class:`ModelNotFound`."""
        with self._lock:
            if not self._store.delete(tenant, name):
                raise ModelNotFound("the tenant has no model of that name")
            self._records.pop((tenant, name), None)

    def list(self, tenant: int | None = None) -> list[Model]:
        """Models of one tenant, or of all, by tenant and name."""
        with self._lock:
            records = list(self._records.values())
        found = [record for record in records if tenant is None or record.tenant == tenant]
        return [self._view(record) for record in sorted(found, key=lambda record: (record.tenant, record.name))]

    def show(self, tenant: int, name: str) -> Model:
        """One of them, bound or not. Raises :class:`ModelNotFound`."""
        record = self._records.get((tenant, name))
        if record is None:
            raise ModelNotFound("the tenant has no model of that name")
        return self._view(record)

    def resolve(self, tenant: int, name: str) -> Model:
        """A model that has a function to answer it. Raises :class:`ModelNotFound`."""
        record = self._records.get((tenant, name))
        model = None if record is None else self._view(record)
        if model is None or model.function_name is None:
            raise ModelNotFound("this tenant has no model of that name; GET /v1/models lists those it has")
        return model

    def _count(self, tenant: int) -> int:
        return sum(owner == tenant for owner, _ in self._records)

    def _view(self, record: ModelRecord) -> Model:
        function: FunctionRecord | None
        try:
            function = self._functions.find(record.function_id, record.tenant)
        except NotFound:
            function = None
        return Model(
            name=record.name,
            tenant=record.tenant,
            function_id=record.function_id,
            export=record.export,
            created_at=record.created_at,
            function_name=None if function is None else function.name,
            digest=None if function is None else function.digest,
        )
