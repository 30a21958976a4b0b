"""``python -m tensor_wasm``: the same as the command ``tensor-wasm``."""

from tensor_wasm.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
