"""Text to tokens: bytes as they are, or a tokenizer.json of Hugging Face tokenizers."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.config import BadInput

# What a document is begun with, by the names that tokenizers give it.
BEGINS = ("<|begin_of_text|>", "<|endoftext|>", "<bos>", "<s>", "[BOS]", "[CLS]")


class Tokenizer(NamedTuple):
    """encode(documents) -> their tokens, one array each."""

    encode: Callable[[list[bytes]], list[np.ndarray]]
    classes: int
    begin: int
    about: dict

    @property
    def is_bytes(self) -> bool:
        return self.about["name"] == "bytes"


def tokenizer(name: str) -> Tokenizer:
    """As --tokenizer says. Where no begin token is known, one more token is it."""
    if name == "bytes":  # byte 0 does not occur in text
        return Tokenizer(_bytes, 256, 0, {"name": "bytes"})
    path = Path(name)
    if not path.is_file():
        said = f"wanted bytes or a tokenizer.json, came {name}"
        raise BadInput(f"--tokenizer: {said}, which is no file")
    try:
        import tokenizers
    except ImportError:
        needs = "needs tokenizers: pip install 'jaxtricks[data]'"
        raise BadInput(f"--tokenizer: {name} {needs}") from None
    try:
        content = path.read_bytes()
        made = tokenizers.Tokenizer.from_str(content.decode())
    except Exception as error:  # that package raises nothing narrower
        reason = str(error).splitlines()[0]
        raise BadInput(f"--tokenizer: {name} is no tokenizer.json: {reason}") from None
    made.no_truncation()
    made.no_padding()
    # Ids may have gaps, so that counting them is not enough.
    classes = max(made.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    known = [made.token_to_id(token) for token in BEGINS]
    begin = next((token for token in known if token is not None), classes)
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()

    def encode(documents: list[bytes]) -> list[np.ndarray]:
        tokens = []
        for at in range(0, len(documents), 256):  # an encoding holds more than its ids
            texts = [text.decode(errors="replace") for text in documents[at : at + 256]]
            done = made.encode_batch_fast(texts, add_special_tokens=False)
            tokens += [np.array(encoding.ids, np.int32) for encoding in done]
        return tokens

    about = {"name": path.name, "digest": digest}
    return Tokenizer(encode, max(classes, begin + 1), begin, about)


def _bytes(documents: list[bytes]) -> list[np.ndarray]:
    return [np.frombuffer(document, np.uint8) for document in documents]
