"""The example that generates text: through the front door, against NumPy, and as its pages show it."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving import Running
from tensor_wasm.config import load
from tensor_wasm.http import Server
from tensor_wasm.node import Node

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "language_model"
SCRIPTS = ("reference", "text", "train", "weights")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def scripts():
    """The example's scripts, which import each other by their names."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in SCRIPTS}
    finally:
        sys.path.remove(str(FOLDER))
        for name in SCRIPTS:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node without tokens."""
    config = load({}, {"home": tmp_path_factory.mktemp("home"), "listen_addr": "127.0.0.1:0", "device": "cpu"}).config
    with Node(config) as opened:
        server = Server(opened, config)
        server.start_in_thread()
        try:
            yield Running(opened, server)
        finally:
            server.stop()


@pytest.fixture(scope="module")
def storyteller(node):
    function = node.node.functions.deploy("language_model", (FOLDER / "language_model.wasm").read_bytes())
    node.node.models.bind(0, "storyteller", function.id)
    return function


def complete(node, prompt, **request):
    value = {"model": "storyteller", "prompt": prompt, "max_tokens": 150, "temperature": 0.7, "seed": 1} | request
    answer = node.post("/v1/completions", value)
    assert answer.status == 200, answer.body
    return answer.json["choices"][0]


@pytest.mark.parametrize(
    ("prompt", "request_"),
    [
        ("Once there was", {}),
        ("Once there was", {"seed": -(2**63)}),
        ("At night the owl", {"temperature": 0, "max_tokens": 40}),
        ("", {"temperature": 2, "seed": 2**63 - 1}),
        ("Zebra, ÄÖ 🦁 jazz", {"temperature": 1.3, "top_p": 0.8, "seed": 5}),
        ("x" * 3000 + " The", {"top_p": 0, "max_tokens": 20}),
        ("<|user|>\nTell me about the fox.\n<|assistant|>\n", {"temperature": 1, "seed": 77}),
    ],
)
def test_the_text_is_numpy_s_to_the_last_bit(node, storyteller, scripts, prompt, request_):
    options = {"max_tokens": 150, "temperature": 0.7, "seed": 1} | request_
    expected = "".join(scripts["reference"].generate(prompt.encode(), **options))
    choice = complete(node, prompt, **request_)
    assert choice["text"] == expected
    assert choice["finish_reason"] == ("length" if len(expected) == options["max_tokens"] else "stop")


def test_a_seed_gives_one_text_and_another_seed_another(node, storyteller):
    first, again, other = (complete(node, "Once there was", seed=seed)["text"] for seed in (3, 3, 4))
    assert first == again != other


def test_it_writes_words(node, storyteller, scripts):
    known = set(re.findall(r"[A-Za-z]+", scripts["text"].make_text(200_000, 1)))
    found = []
    for seed in range(5):
        found += re.findall(r"[A-Za-z]+", complete(node, "Once there was", seed=seed, max_tokens=400)["text"])
    assert len(found) > 100
    assert sum(word in known for word in found) > 0.95 * len(found), found


def test_it_answers_questions(node, storyteller):
    value = {"model": "storyteller", "messages": [{"role": "user", "content": "Where is the owl?"}], "temperature": 0}
    answer = node.post("/v1/chat/completions", value).json["choices"][0]
    assert re.fullmatch(r"The owl is [a-z ]+\.", answer["message"]["content"])
    assert answer["finish_reason"] == "stop"


def test_its_sums_are_kernels(node, storyteller):
    prompt = b"max_tokens: 3\ntemperature: 0.0\ntop_p: 1.0\nseed: 0\n\nOnce"
    result = node.node.invocations.invoke(storyteller.id, input=prompt)
    # Two line feeds and four letters are read; then nobody listens to the first character.
    assert result.launches == 2 + 4 + 1


def test_an_input_that_is_not_a_node_s_is_told(node, storyteller):
    answer = node.post(f"/functions/{storyteller.id}/invoke", {"input_b64": "SGVsbG8="})
    assert answer.kind == "trap"
    assert "/v1/completions" in answer.message


def test_the_weights_are_small_and_in_the_guest():
    data = (FOLDER / "weights.bin").read_bytes()
    assert len(data) < 300_000
    assert data[:1000] in (FOLDER / "language_model.wasm").read_bytes()


def test_the_gradient_that_it_learns_by_is_right(scripts, monkeypatch):
    train = scripts["train"]
    monkeypatch.setattr(train, "UNITS", 7)
    chance = np.random.default_rng(5)
    weights = {name: value.astype(np.float64) for name, value in train.initial(9, chance).items()}
    read, state = chance.integers(0, 9, (6, 3)), chance.normal(0, 0.3, (3, 7))
    monkeypatch.setattr(train.np, "float32", np.float64)
    _, gradient, _ = train.step(weights, read, state)
    for name, value in weights.items():
        for place in [tuple(chance.integers(0, size) for size in value.shape) for _ in range(5)]:
            before, losses = value[place], []
            for step in (1e-5, -1e-5):
                value[place] = before + step
                losses.append(train.step(weights, read, state)[0])
            value[place] = before
            assert gradient[name][place] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-4, abs=1e-8), name


# --- as the pages show it -------------------------------------------------------------------------------------


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text("utf-8")
    return [body for found, body in FENCE.findall(text) if found == language]


def run(command, node, text, folder=ROOT):
    """Run what a page shows, against this node."""
    text = text.replace("127.0.0.1:8080", f"{node.host}:{node.port}")
    text = re.sub(r"(^|\()tensor-wasm\b", rf"\1{sys.executable} -m tensor_wasm", text, flags=re.MULTILINE)
    environment = {**os.environ, "TENSOR_WASM_SERVER": f"http://{node.host}:{node.port}", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, text], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_commands_of_the_page_run(node):
    printed = run(["bash", "-euc"], node, blocks("docs/openai.md", "sh")[0])
    bound, _, rest = printed.partition("\n")
    assert bound.startswith("storyteller of tenant 0 is answered by ")
    answer, _, stream = rest.partition("data: ")
    assert json.loads(answer)["choices"][0]["text"].endswith(".")
    assert stream.endswith("data: [DONE]\n\n")


@pytest.mark.slow
def test_the_program_of_the_page_runs(node, storyteller):
    printed = run([sys.executable, "-W", "error", "-c"], node, blocks("docs/openai.md", "python")[0])
    assert printed.splitlines()[0].startswith(" a ")
    assert re.fullmatch(r"I am .*\.", printed.splitlines()[1])


@pytest.mark.slow
def test_the_commands_of_the_example_s_page_give_the_text_that_it_shows(node):
    (shown,) = blocks("examples/language_model/README.md", "text")
    commands, numpy = blocks("examples/language_model/README.md", "sh")
    printed = run(["bash", "-euc"], node, commands)
    assert json.loads(printed.partition("\n")[2])["choices"][0]["text"].split() == shown.split()
    (line,) = [line for line in numpy.splitlines() if "reference.py" in line]
    text = line.replace("python", sys.executable, 1)
    assert run(["bash", "-euc"], node, text).split() == shown.split()


@pytest.mark.slow
def test_it_learns(scripts, tmp_path):
    command = [sys.executable, str(FOLDER / "train.py"), "--steps", "60", "--output", str(tmp_path / "w.bin")]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", done.stdout)]
    assert losses[-1] < 0.9 * losses[0]
    generate = scripts["reference"].generate
    assert "".join(generate(b"The ", max_tokens=5, temperature=0, file=tmp_path / "w.bin"))
