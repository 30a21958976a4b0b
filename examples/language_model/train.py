"""Train the model: one layer of gated recurrent units over characters, in NumPy. Writes weights.bin.

    python examples/language_model/train.py                 some three minutes on one core
    python examples/language_model/train.py --steps 50      only to see that it works; weights go to --output FILE

The text is what text.py makes. The same seed reads the same text, but sums differ a little from machine to
machine: the weights that are committed come from one run.
"""

# ruff: noqa: INP001, T201 - a script: no package, and it prints what it does.

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from text import make_text
from weights import CHARACTERS_MAX, UNITS, quantise

Floats = NDArray[np.float32]
Parameters = dict[str, Floats]

TEXT_CHARACTERS = 600_000
#: Parts of the text that are read side by side, and how many characters of each in a step.
ROWS, STEPS_IN_TIME = 32, 96
LEARNING_RATE = 4e-3
GRADIENT_MAX = 1.0


def soft_sign(x: Floats) -> tuple[Floats, Floats]:
    """A tanh that needs no exponential, and its derivative: x(27 + x²) / (27 + 9x²) between -3 and 3."""
    inside = np.clip(x, -3.0, 3.0)
    square = inside * inside
    value = inside * (27 + square) / (27 + 9 * square)
    slope = (square - 9) ** 2 / (9 * (square + 3) ** 2)
    return value, slope


def sigmoid(x: Floats) -> tuple[Floats, Floats]:
    """The matching sigmoid, and its derivative."""
    value, slope = soft_sign(x * 0.5)
    return 0.5 + 0.5 * value, 0.25 * slope


def initial(count: int, chance: np.random.Generator) -> Parameters:
    """Weights to start with, for ``count`` characters. Gates are in the order update, reset, new."""
    bias = np.zeros(3 * UNITS, np.float32)
    bias[:UNITS] = 1.0  # remember at first
    return {
        "input": chance.normal(0, 0.2, (count, 3 * UNITS)).astype(np.float32),
        "state": chance.normal(0, UNITS**-0.5, (UNITS, 3 * UNITS)).astype(np.float32),
        "input_bias": bias,
        "state_bias": np.zeros(3 * UNITS, np.float32),
        "output": chance.normal(0, UNITS**-0.5, (UNITS, count)).astype(np.float32),
        "output_bias": np.zeros(count, np.float32),
    }


def step(weights: Parameters, read: NDArray[np.intp], state: Floats) -> tuple[float, Parameters, Floats]:
    """The loss (nats a character) over ``read`` (time + 1, rows), its gradient, and the state after it."""
    steps, rows = len(read) - 1, state.shape[0]
    u = UNITS
    states, kept = [state], []
    for t in range(steps):
        of_input = weights["input"][read[t]] + weights["input_bias"]
        of_state = states[-1] @ weights["state"] + weights["state_bias"]
        gates, gate_slopes = sigmoid(of_input[:, : 2 * u] + of_state[:, : 2 * u])
        update, reset = gates[:, :u], gates[:, u:]
        new, new_slope = soft_sign(of_input[:, 2 * u :] + reset * of_state[:, 2 * u :])
        states.append(new + update * (states[-1] - new))
        kept.append((update, reset, gate_slopes, new, new_slope, of_state[:, 2 * u :]))
    outputs = np.stack(states[1:])
    logits = outputs @ weights["output"] + weights["output_bias"]
    logits -= logits.max(-1, keepdims=True)
    chances = np.exp(logits)
    chances /= chances.sum(-1, keepdims=True)
    wanted = read[1:]
    of_wanted = np.take_along_axis(chances, wanted[..., None], -1)
    loss = float(-np.log(of_wanted + 1e-12).mean())
    np.put_along_axis(chances, wanted[..., None], of_wanted - 1, -1)
    d_logits = chances / np.float32(steps * rows)
    flat = d_logits.reshape(-1, d_logits.shape[-1])
    gradient = {
        "output": outputs.reshape(-1, u).T @ flat,
        "output_bias": flat.sum(0),
        "input": np.zeros_like(weights["input"]),
    }
    d_outputs = d_logits @ weights["output"].T
    d_inputs = np.empty((steps, rows, 3 * u), np.float32)
    d_of_states = np.empty((steps, rows, 3 * u), np.float32)
    d_state = np.zeros_like(state)
    back = weights["state"].T.copy()
    for t in reversed(range(steps)):
        update, reset, gate_slopes, new, new_slope, of_new = kept[t]
        d_state = d_state + d_outputs[t]
        d_new = d_state * (1 - update) * new_slope
        d_inputs[t, :, :u] = d_state * (states[t] - new) * gate_slopes[:, :u]
        d_inputs[t, :, u : 2 * u] = d_new * of_new * gate_slopes[:, u:]
        d_inputs[t, :, 2 * u :] = d_new
        d_of_states[t, :, : 2 * u] = d_inputs[t, :, : 2 * u]
        d_of_states[t, :, 2 * u :] = d_new * reset
        d_state = d_state * update + d_of_states[t] @ back
    np.add.at(gradient["input"], read[:-1].ravel(), d_inputs.reshape(-1, 3 * u))
    gradient["input_bias"] = d_inputs.sum((0, 1))
    gradient["state_bias"] = d_of_states.sum((0, 1))
    gradient["state"] = np.stack(states[:-1]).reshape(-1, u).T @ d_of_states.reshape(-1, 3 * u)
    return loss, gradient, states[-1]


class Adam:
    """Kingma and Ba's optimiser, with the gradient's length bounded."""

    def __init__(self, weights: Parameters) -> None:
        self._first = {name: np.zeros_like(value) for name, value in weights.items()}
        self._second = {name: np.zeros_like(value) for name, value in weights.items()}
        self._count = 0

    def apply(self, weights: Parameters, gradient: Parameters, rate: float) -> None:
        """Change the weights in place."""
        self._count += 1
        length = float(np.sqrt(sum(float((value * value).sum()) for value in gradient.values())))
        scale = np.float32(min(1.0, GRADIENT_MAX / (length + 1e-6)))
        for name, value in gradient.items():
            bounded = value * scale
            first, second = self._first[name], self._second[name]
            first += 0.1 * (bounded - first)
            second += 0.005 * (bounded * bounded - second)
            corrected = first / (1 - 0.9**self._count)
            weights[name] -= rate * corrected / (np.sqrt(second / (1 - 0.995**self._count)) + 1e-8)


def train(steps: int, seed: int) -> tuple[str, Parameters]:
    """The characters that the model knows, and its weights."""
    text = make_text(TEXT_CHARACTERS, seed)
    characters = "".join(sorted(set(text)))
    assert len(characters) <= CHARACTERS_MAX
    numbers = np.array([characters.index(c) for c in text], np.intp)
    long = len(numbers) // ROWS
    rows = numbers[: long * ROWS].reshape(ROWS, long).T  # each row reads on where it stopped
    weights = initial(len(characters), np.random.default_rng(seed))
    optimiser, state, at = Adam(weights), np.zeros((ROWS, UNITS), np.float32), 0
    started = time.monotonic()
    mean = 0.0
    for number in range(steps):
        if at + STEPS_IN_TIME + 1 > long:
            at, state = 0, np.zeros_like(state)
        loss, gradient, state = step(weights, rows[at : at + STEPS_IN_TIME + 1], state)
        at += STEPS_IN_TIME
        warm = min(1.0, (number + 1) / 50)
        rate = LEARNING_RATE * warm * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * number / steps)))
        optimiser.apply(weights, gradient, float(rate))
        mean = loss if number == 0 else 0.95 * mean + 0.05 * loss
        if number % 50 == 0 or number == steps - 1:
            print(f"step {number}  loss {mean:.3f} nats a character  {time.monotonic() - started:.0f} s", flush=True)
    return characters, weights


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the example's language model.")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "weights.bin")
    options = parser.parse_args()
    characters, weights = train(options.steps, options.seed)
    data = quantise(characters, weights)
    options.output.write_bytes(data)
    print(f"{options.output}: {len(data)} bytes")


if __name__ == "__main__":
    main()
