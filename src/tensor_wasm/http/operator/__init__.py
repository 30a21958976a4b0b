"""The operator's listener: what an operator must see although the event loop hangs, on a thread of its own."""

from tensor_wasm.http.operator.answers import Answers, check_operator_address
from tensor_wasm.http.operator.listener import OperatorListener

__all__ = ["Answers", "OperatorListener", "check_operator_address"]
