"""The text that the model is trained on: small stories and talks, put together by chance from the words below.

Written for this example; it is in the public domain.
"""

# ruff: noqa: INP001 - beside the scripts that use it.

from __future__ import annotations

import random

WHO = ("fox", "owl", "bear", "mouse", "hare", "crow", "cat", "dog", "goat", "frog")
LIKE = ("old", "small", "grey", "wise", "quiet", "young", "hungry", "sleepy", "brave", "clever")
WHERE = (
    "by the river", "in the wood", "under the hill", "near the mill", "on the bridge", "at the old gate",
    "in the garden", "behind the barn",
)  # fmt: skip
THING = ("a lamp", "a letter", "a drum", "a red apple", "a silver key", "a loaf of bread", "a blue stone", "a map")
WHEN = (
    "In the morning", "At noon", "In the evening", "At night", "One day in spring", "On a cold day", "After the rain",
)  # fmt: skip
FELT = ("glad", "sad", "tired", "proud", "afraid", "warm")
SKY = ("The rain fell.", "The wind was cold.", "The sun was warm.", "Snow lay on the road.", "The moon was bright.")
HELLO = ("Hello.", "Hello!", "Hi.", "Good morning.", "Good evening.")
NAME = (
    ("Who are you?", "I am a small model of letters."),
    ("What are you?", "I am a small model of letters."),
    ("What is your name?", "I have no name. I am a small model."),
    ("How are you?", "I am well, thank you."),
    ("Thank you.", "You are welcome."),
    ("Goodbye.", "Goodbye. Come again."),
    ("What can you do?", "I can tell you a story about a fox or an owl."),
    ("Where do you live?", "I live in the memory of a small machine."),
)


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _story(chance: random.Random, who: str | None = None) -> str:
    first, second = chance.sample(WHO, 2)
    first = who or first
    like, other = chance.sample(LIKE, 2)
    if second == first:
        second = "owl" if first != "owl" else "fox"
    thing, place = chance.choice(THING), chance.choice(WHERE)
    lines = [
        chance.choice((
            f"Once there was {_article(f'{like} {first}')} who lived {place}.",
            f"{chance.choice(WHEN)} the {like} {first} sat {place}.",
            f"{chance.choice(WHEN)} the {like} {first} went for a walk {place}.",
        )),
        chance.choice(SKY),
        chance.choice((
            f"The {first} found {thing} and was {chance.choice(FELT)}.",
            f"The {first} met {_article(f'{other} {second}')} who had {thing}.",
            f"The {first} looked for {thing} and did not find it.",
        )),
        chance.choice((
            f"\"Where do you go?\" said the {second}.",
            f"\"What is that?\" said the {second}.",
            f"\"Will you come with me?\" said the {second}.",
        )),
        chance.choice((
            f"\"I go home,\" said the {first}.",
            f"\"It is {thing},\" said the {first}.",
            f"\"I will,\" said the {first}.",
        )),
        chance.choice((
            f"So they went home and were {chance.choice(FELT)}.",
            f"Then the {first} slept {chance.choice(WHERE)}.",
            "And that is the end of it.",
        )),
    ]  # fmt: skip
    return " ".join(lines)


def _talk(chance: random.Random) -> str:
    kind = chance.randrange(4)
    if kind == 0:
        asked, answer = chance.choice(HELLO), f"{chance.choice(HELLO)} What do you want to hear?"
    elif kind == 1:
        asked, answer = chance.choice(NAME)
    elif kind == 2:
        who = chance.choice(WHO)
        asked = chance.choice((f"Tell me about the {who}.", f"Tell me a story about {_article(who)}."))
        answer = _story(chance, who)
    else:
        who, place = chance.choice(WHO), chance.choice(WHERE)
        asked = chance.choice((f"Where is the {who}?", f"Where does the {who} live?"))
        answer = f"The {who} {'is' if asked.startswith('Where is') else 'lives'} {place}."
    system = chance.choice(("<|system|>\nBe kind.\n", "<|system|>\nYou are a helpful assistant.\n", "", "", ""))
    return f"{system}<|user|>\n{asked}\n<|assistant|>\n{answer}"


def make_text(characters: int, seed: int) -> str:
    """So many characters of it; the same for the same seed."""
    chance = random.Random(seed)
    parts: list[str] = []
    length = 0
    while length < characters:
        part = (_talk(chance) if chance.random() < 0.5 else _story(chance)) + "\n\n"
        parts.append(part)
        length += len(part)
    return "".join(parts)[:characters]


if __name__ == "__main__":
    print(make_text(3_000, seed=1))  # noqa: T201 - a script
