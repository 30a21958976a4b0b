"""The guest's computation in NumPy, bit for bit: the same text for the same weights, prompt and seed.

python examples/language_model/reference.py 'Once there was' --seed 3 --temperature 0.7

It is slower than the guest, and needs no node.
"""

# ruff: noqa: INP001, T201 - a script: no package, and it prints what it does.

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from weights import CHARACTERS_MAX, STATE_ONE, UNITS, Weights, read

WEIGHTS = Path(__file__).parent / "weights.bin"
#: How many bytes of the prompt are read, from its end.
CONTEXT_BYTES = 2048
#: Below this temperature the likeliest character is taken.
COLD = 0.001

_F = np.float32
_U64 = (1 << 64) - 1
_FACTORS = [1 / math.factorial(n) for n in range(13, -1, -1)]

Floats = NDArray[np.float32]
State = NDArray[np.int16]


def soft_sign(x: Floats) -> Floats:
    """As in the kernel: each operation is rounded to 32 bits."""
    x = np.clip(x, _F(-3), _F(3))
    square = x * x
    return x * (_F(27) + square) / (_F(27) + _F(9) * square)


def sigmoid(x: Floats) -> Floats:
    """As in the kernel."""
    return _F(0.5) + _F(0.5) * soft_sign(x * _F(0.5))


def advance(weights: Weights, character: int, state: State) -> State:
    """The state after a character."""
    sums = state.astype(np.int32) @ weights.state.astype(np.int32)
    of_input = weights.input[character].astype(_F) * weights.input_scale + weights.input_bias
    of_state = sums.astype(_F) * weights.state_scale + weights.state_bias
    update, reset = (sigmoid(of_input[g : g + UNITS] + of_state[g : g + UNITS]) for g in (0, UNITS))
    fresh = soft_sign(of_input[2 * UNITS :] + reset * of_state[2 * UNITS :])
    last = state.astype(_F) * _F(_F(1) / _F(STATE_ONE))
    value = fresh + update * (last - fresh)
    return np.rint(value * _F(STATE_ONE)).astype(np.int16)


def logits(weights: Weights, state: State) -> Floats:
    """How likely each character comes next."""
    sums = state.astype(np.int32) @ weights.output.astype(np.int32)
    return sums.astype(_F) * weights.output_scale + weights.output_bias


class Dice:
    """Random numbers from a seed (splitmix64)."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _U64

    def roll(self) -> float:
        """The next, from 0 to 1."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _U64
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _U64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _U64
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53


def exponential(x: float) -> float:
    """The exponential function, for x up to 0, by additions and multiplications only."""
    if x < -700:
        return 0.0
    power = math.floor(x * 1.4426950408889634 + 0.5)
    rest = x - power * 0.6931471805599453
    total = 0.0
    for factor in _FACTORS:
        total = total * rest + factor
    return math.ldexp(total, power)


def choose(likely: Floats, temperature: float, top_p: float, dice: Dice) -> int:
    """The next character."""
    values = [float(value) for value in likely]
    best = values.index(max(values))
    if temperature < COLD:
        return best
    chances = [exponential((value - values[best]) / temperature) for value in values]
    order = sorted(range(CHARACTERS_MAX), key=lambda character: -chances[character])
    total = 0.0
    for character in order:
        total += chances[character]
    wanted, kept, count = top_p * total, 0.0, 0
    while count < CHARACTERS_MAX and (count == 0 or kept < wanted):
        kept += chances[order[count]]
        count += 1
    left = dice.roll() * kept
    for character in order[:count]:
        left -= chances[character]
        if left < 0:
            return character
    return order[count - 1]


def character_of(weights: Weights, byte: int) -> int | None:
    """The number of a character; None for one that is passed over. What the model has not is a space to it."""
    if 0x80 <= byte < 0xC0:  # not the first byte of its character
        return None
    for known in (byte, byte | 0x20 if 65 <= byte <= 90 else byte, 0x20):
        if known and known in weights.characters:
            return weights.characters.index(known)
    raise AssertionError("the model knows the space")


def generate(
    prompt: bytes, *, max_tokens: int, temperature: float = 1.0, top_p: float = 1.0, seed: int = 0, file: Path = WEIGHTS
) -> Iterator[str]:
    """The characters that follow the prompt, to the end of the line."""
    weights = read(file.read_bytes())
    state = np.zeros(UNITS, np.int16)
    for byte in b"\n\n" + prompt[-CONTEXT_BYTES:]:
        character = character_of(weights, byte)
        if character is not None:
            state = advance(weights, character, state)
    dice = Dice(seed)
    for _ in range(max_tokens):
        character = choose(logits(weights, state), temperature, top_p, dice)
        text = chr(weights.characters[character])
        if text == "\n":
            return
        yield text
        state = advance(weights, character, state)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Generate text with the example's weights.")
    parser.add_argument("prompt")
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for text in generate(
        options.prompt.encode(),
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
    ):
        print(text, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
