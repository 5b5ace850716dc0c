"""Fixed vocabularies of whole words for the three text models, in the files that their classes
load."""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTokenizer, PreTrainedTokenizerFast, T5TokenizerFast

from models.training.captions import TAILS
from models.training.questions import POSTFIX, every_question
from models.training.world import ATTRIBUTES

T5_LENGTH = 32
END_OF_UTTERANCE = "<end_of_utterance>"
IMAGE = "<image>"
AROUND_IMAGE = "<fake_token_around_image>"

_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}

# Words of users that are in no caption.
_SPARE = "A The An the an and of in shape object image scene picture photo is near side center sky"


def caption_words() -> list[str]:
    """Every word of the captions, and a few more."""
    values = [value for values in ATTRIBUTES.values() for value in values]
    phrases = " ".join([*TAILS.values(), *values, "a", _SPARE])
    return sorted({word for word in phrases.split() if "{" not in word})


def t5_tokenizer() -> Any:
    """A tokenizer with one piece for each word."""
    pieces = [f"▁{word}" for word in caption_words()]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocab += [(piece, -1.0) for piece in pieces] + [(",", -2.0), (".", -2.0)]
    return T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=T5_LENGTH)


def clip_tokenizer() -> Any:
    """Byte-pair encoding whose merges spell out each word from the left."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    merges: list[tuple[str, str]] = []
    for word in sorted({word.lower() for word in caption_words()}):
        letters = [*word[:-1], f"{word[-1]}</w>"]
        left = letters[0]
        for letter in letters[1:]:
            if (left, letter) not in merges:
                merges.append((left, letter))
                symbols.append(left + letter)
            left += letter
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {symbol: i for i, symbol in enumerate(symbols)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def chat(question: str) -> str:
    """Idefics2's chat format around one image and a question, up to the answer."""
    return f"User:{IMAGE}{question}{END_OF_UTTERANCE}\nAssistant: "


def vlm_tokenizer() -> Any:
    """A tokenizer with one id for each word or mark; whitespace is ignored."""
    text = " ".join([*every_question(), POSTFIX, "User: Assistant: Yes No", *caption_words()])
    split = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    words = sorted({word for word, _ in split.pre_tokenize_str(text)})
    special = ["<unk>", "<s>", "</s>", AROUND_IMAGE, IMAGE, END_OF_UTTERANCE]
    vocab = {word: i for i, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=special[0]))
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **_SPECIAL,
        additional_special_tokens=[AROUND_IMAGE, IMAGE, END_OF_UTTERANCE],
        padding_side="left",
        model_max_length=2048,
    )
