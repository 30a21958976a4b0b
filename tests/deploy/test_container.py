"""The container file: its instructions, what it copies, and its health check on a real server."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

import pytest

from serving import running

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "container"
KNOWN = {
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "RUN",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
}
KNOWN |= {"WORKDIR"}


def instructions() -> list[tuple[str, str]]:
    """(instruction, its text) without comments, continued lines joined."""
    lines = [line for line in (FOLDER / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in joined.splitlines() if line.strip()]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage; what stands before the first FROM belongs to none."""
    found: list[list[tuple[str, str]]] = []
    for word, text in instructions():
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, text))
    return found


def of(stage, word):
    return [text for found, text in stage if found == word]


def test_every_instruction_is_one_and_can_be_read():
    for word, text in instructions():
        assert word in KNOWN, word
        assert text
        if text.startswith("["):
            assert all(isinstance(part, str) for part in json.loads(text))
        elif word == "RUN":
            assert shlex.split(text)
            checked = subprocess.run(["sh", "-n", "-c", text], capture_output=True, text=True, check=False)
            assert checked.returncode == 0, checked.stderr


def test_what_is_copied_is_there_and_goes_to_the_builder():
    build, final = stages()
    sources = [source for text in of(build, "COPY") for source in text.split()[:-1]]
    let_in = [line[1:] for line in (FOLDER / "Containerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in let_in), source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml", "src"} <= set(sources)
    stage, *copied = of(final, "COPY")[0].split()
    assert stage == "--from=build"
    assert copied[0] == copied[1] == "/opt/tensor-wasm"
    assert f"venv --without-pip {copied[0]}" in of(build, "RUN")[0]


def test_the_extras_are_the_project_s():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"EXTRAS=([a-z]+(?:,[a-z]+)*)", (FOLDER / "Containerfile").read_text()))
    assert {name for text in named for name in text.split(",")} == {"otlp", "cuda"} <= extras.keys()


def test_the_final_stage_builds_nothing_and_runs_as_nobody_in_particular():
    _, final = stages()
    assert of(final, "USER") == ["10001:10001"]
    words = [word for text in of(final, "RUN") for word in shlex.split(text)]
    assert not {"install", "apt-get", "gcc"} & {word for word, after in pairwise(words) if after != "-d"}
    last_root = max(index for index, (word, _) in enumerate(final) if word in {"RUN", "COPY"})
    assert last_root < [word for word, _ in final].index("USER")
    assert (of(final, "ENTRYPOINT"), of(final, "CMD")) == (['["tensor-wasm"]'], ['["serve"]'])


@pytest.mark.parametrize(("path", "code"), [("/healthz", 0), ("/no-such-route", 1)])
def test_the_health_check_works(tmp_path, path, code):
    _, final = stages()
    command = json.loads(of(final, "HEALTHCHECK")[0].partition("CMD ")[2])
    with running(tmp_path) as node:
        text = command[2].replace("127.0.0.1:8080/healthz", f"{node.host}:{node.port}{path}")
        assert text != command[2]
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, check=False, timeout=60)
    assert done.returncode == code
