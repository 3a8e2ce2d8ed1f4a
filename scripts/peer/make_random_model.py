"""A checkpoint of a real model's size with random weights and a tokenizer, for measuring speed and memory.

usage: make_random_model.py OUT [--size mini|base] [--labels N] [--seed N]     (needs torch and transformers)
`mini` has the shape of MiniLM-L6 (BERT), `base` that of RoBERTa-base; both with a classification head. The tokenizer has
the real vocabulary's size and special tokens, but every character (BERT) or byte (RoBERTa) is a token of its own: the
text means nothing to such a model anyway.
"""
import argparse
import os

import tokenizers
import torch
import transformers as tf
from step_speed import SIZES


def write_wordpiece(folder, size):
    """BERT's special tokens at their places, then printable ASCII at the start of words and within them."""
    printable = [chr(c) for c in range(33, 127)]
    lines = ["[PAD]"] + [f"[unused{i}]" for i in range(99)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    lines += printable + ["##" + c for c in printable]
    lines += [f"[unused{i}]" for i in range(99, 99 + size - len(lines))]
    with open(os.path.join(folder, "vocab.txt"), "w") as f:
        f.writelines(line + "\n" for line in lines)


def write_byte_bpe(folder, size):
    """RoBERTa's special tokens at their places and the 256 bytes, without merges."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>"] + sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens += [f"unused{i}" for i in range(size - len(tokens) - 1)] + ["<mask>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    tf.RobertaTokenizer(vocab=vocab, merges=[], add_prefix_space=False).save_pretrained(folder)


def make(folder, size, labels=2, seed=0):
    cls, make_config, extents = SIZES[size]
    torch.manual_seed(seed)
    model = cls(make_config(num_labels=labels, **extents))
    model.save_pretrained(folder)
    if size == "mini":
        write_wordpiece(folder, model.config.vocab_size)
    else:
        write_byte_bpe(folder, model.config.vocab_size)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--size", default="base", choices=list(SIZES))
    p.add_argument("--labels", type=int, default=2)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    make(a.out, a.size, a.labels, a.seed)


if __name__ == "__main__":
    main()
