"""A real node held to its description by schemathesis: requests that are right, wrong, and follow from each other.

``schemathesis.toml`` has what is checked and what is expected otherwise; ``schemathesis_hooks.py`` what a schema cannot
say.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from administered import administered

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("schemathesis")
CONFIG = "tests/http/schemathesis.toml"
#: Far beyond what it takes, on a machine five times slower too.
PATIENCE_S = 600


def held_to_its_description(home, *options, seed):
    with administered(home, queue_depth=100) as server:
        command = [
            COMMAND, "--config-file", CONFIG, "run", f"http://{server.host}:{server.port}/openapi.json",
            "--header", "Authorization: Bearer boss", "--seed", str(seed), "--generation-database", "none",
            "--continue-on-failure", "--no-color", *options,
        ]  # fmt: skip
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        print(f"seed {seed}", done.stdout, done.stderr, sep="\n")
        assert done.returncode == 0, "see the output above: what it found, with a line to send it again"
        # It ended in peace, and what it checked was there.
        assert server.get("/healthz").status == 200
        assert server.get("/readyz").status == 200
        assert "API Operations" in done.stdout


@pytest.mark.slow
def test_examples_and_the_edges_of_every_schema(tmp_path):
    """Each example of the description; each bound of a schema, at it and beyond; methods that there are not."""
    held_to_its_description(tmp_path, "--phases", "examples,coverage", seed=1)


@pytest.mark.slow
def test_random_requests_and_what_follows_from_their_answers(tmp_path):
    """Random bodies and parameters; ids that answers gave, used by other operations, also after they were deleted."""
    seed = random.randrange(1 << 32)
    held_to_its_description(tmp_path, "--phases", "fuzzing,stateful", "--max-examples", "100", seed=seed)
