"""Writes small random BERT and RoBERTa checkpoints in Hugging Face's layout, with their outputs.

usage: make_model_golden.py OUT          (needs torch, transformers, tokenizers, safetensors)

OUT/<name>/config.json, model.safetensors (or shards and their index)    written by save_pretrained, weights f32
OUT/<name>/vocab.txt or tokenizer.json                                   where a test reads text
OUT/<name>/io.safetensors                                                inputs and the reference outputs:
    input_ids, attention_mask, [token_type_ids]     I64 [B,S]; absent token types are all zero
    hidden_states.0 .. hidden_states.N              F32 [B,S,D], embeddings first
    logits                                          F32 [B,labels], where the model has a head
OUT/bert_h768 has no weights in a file, since they are large: `by_formula` says what they are.
OUT/<name>/io_holes.safetensors                                          the same with pads in the middle (two models)
Outputs are computed in f64 from the f32 weights, in eval mode, and rounded to f32 once. Hidden states at
pads are real outputs too: a pad is a query like any other token; it is never a key.
"""
import json
import os
import shutil
import sys

import numpy
import tokenizers
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

SENTENCES = [
    "a good film", "the plot is bad", "not a dull moment", "it is a very very long and dull film",
    "good acting, bad plot", "the best of the year!", "dull", "never good", "a fine cast and a fine story",
    "the story was bad, the acting worse", "best film ever", "i was not moved", "so so", "worse than dull",
    "a long, long story of the sea", "the sea was good",
]
WORDS = ["a", "the", "is", "it", "and", "of", "not", "very", "good", "bad", "dull", "film", "plot", "story", "long",
         "fine", "best", "sea", "was", "act", "##ing", "##e", "##s"]


def bert_vocab(size):
    """A WordPiece vocabulary with BERT's special tokens, letters, continuations and a few words, `size` lines."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "!", ",", "."] + list(letters)
    lines += ["##" + c for c in letters] + [w for w in WORDS if w not in letters and w not in ("##e", "##s")]
    return (lines + [f"[unused{i}]" for i in range(size)])[:size]


def write_byte_bpe(folder, size):
    """RoBERTa's byte-level BPE over SENTENCES: tokenizer.json, with <s> 0, <pad> 1, </s> 2, <unk> 3, <mask> 4."""
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(SENTENCES, vocab_size=size, min_frequency=2, show_progress=False,
                            special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    assert bpe.get_vocab_size() <= size
    model = json.loads(bpe.to_str())["model"]
    vocab, merges = model["vocab"], [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    tf.RobertaTokenizer(vocab=vocab, merges=merges, add_prefix_space=False).save_pretrained(folder)


def randomise(model, seed):
    """Weights that make every parameter count: biases and LayerNorms too, and attention far from uniform."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if "LayerNorm" in name or "layer_norm" in name:
                p.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                p.copy_(0.2 * noise)
            elif "embeddings" in name:
                p.copy_(0.5 * noise)
            else:
                gain = 2.0 if ".query." in name or ".key." in name else 1.0
                p.copy_(gain * noise / p.shape[-1] ** 0.5)
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return model


def by_formula(name, shape):
    """Weights that need no file: splitmix64 of (FNV-1a hash of the tensor's name + the element's number), its upper 24
    bits as u in [-1/2, 1/2); LayerNorm weights 1 + u/5, vectors u/5, matrices u sqrt(12 / columns)."""
    hashed = 0xCBF29CE484222325
    for byte in name.encode():
        hashed = ((hashed ^ byte) * 0x100000001B3) % 2**64
    with numpy.errstate(over="ignore"):
        x = numpy.uint64(hashed) + numpy.arange(numpy.prod(shape), dtype=numpy.uint64)
        x = x + numpy.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        x = x ^ (x >> numpy.uint64(31))
    u = (x >> numpy.uint64(40)).astype(numpy.float64) / 2**24 - 0.5
    if name.endswith("LayerNorm.weight"):
        values = 1 + u / 5
    else:
        values = u / 5 if len(shape) == 1 else u * (12 / shape[-1]) ** 0.5
    return torch.from_numpy(values.reshape(shape).astype(numpy.float32))


def write_wide(out):
    """A model of BERT-base's width, its weights by formula."""
    name, config, cls = bert("bert_h768", 768, 12, 3072, 2, 120, 40, labels=3)
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    model = cls(config)
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.copy_(by_formula(key, p.shape))
    config.architectures = [cls.__name__]
    config.save_pretrained(folder)
    write_io(model, os.path.join(folder, "io.safetensors"), 3, 7, 5)


def ragged_inputs(config, batch, length, seed, masks):
    """Token ids with pad tokens where the mask is 0; masks: 'ends' pads right and left, 'holes' in the middle."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, config.vocab_size, (batch, length), generator=g)
    mask = torch.ones_like(ids)
    for b in range(1, batch):
        if masks == "holes":
            mask[b, (b * 3) % length] = 0
            mask[b, (b * 5 + 1) % length] = 0
        elif b % 2:
            mask[b, max(1, length - 3 * b):] = 0      # pads right
        else:
            mask[b, :b + 1] = 0                       # pads left
    if masks == "ends":
        mask[-1] = 0
        mask[-1, 0] = 1                               # one valid token
    return ids.masked_fill(mask == 0, config.pad_token_id), mask


def reference_outputs(model, ids, mask, types):
    """hidden_states.* and, with a classification head, logits: f64, rounded to f32 once."""
    model = model.double().eval()
    inputs = dict(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    if types is not None:
        inputs["token_type_ids"] = types
    with torch.no_grad():
        out = model(**inputs)
    result = {f"hidden_states.{i}": h.float().contiguous() for i, h in enumerate(out.hidden_states)}
    if "SequenceClassification" in type(model).__name__:
        result["logits"] = out.logits.float().contiguous()
    return result


def write_io(model, path, batch, length, seed, masks="ends", types=False):
    ids, mask = ragged_inputs(model.config, batch, length, seed, masks)
    kinds = None
    if types:
        split = torch.arange(batch)[:, None] + 2
        kinds = (torch.arange(length)[None] > split).long() * mask
    inputs = dict(input_ids=ids, attention_mask=mask)
    if types:
        inputs["token_type_ids"] = kinds
    save_file({**inputs, **reference_outputs(model, ids, mask, kinds)}, path)


def rename_tensors(folder, rename, extra=None):
    """Rewrites model.safetensors with other names: the layouts of checkpoints published years ago."""
    path = os.path.join(folder, "model.safetensors")
    tensors = {rename(k): v for k, v in load_file(path).items()}
    tensors.update(extra or {})
    save_file(tensors, path, metadata={"format": "pt"})


def bert(name, hidden, heads, ffn, layers, vocab, positions, cls=tf.BertForSequenceClassification, labels=2, act="gelu"):
    config = tf.BertConfig(vocab_size=vocab, hidden_size=hidden, num_attention_heads=heads, intermediate_size=ffn,
                           num_hidden_layers=layers, max_position_embeddings=positions, num_labels=labels,
                           hidden_act=act, type_vocab_size=2, attn_implementation="eager")
    return name, config, cls


def roberta(name, hidden, heads, ffn, layers, vocab, positions, cls=tf.RobertaForSequenceClassification, labels=2):
    config = tf.RobertaConfig(vocab_size=vocab, hidden_size=hidden, num_attention_heads=heads, intermediate_size=ffn,
                              num_hidden_layers=layers, max_position_embeddings=positions, num_labels=labels,
                              pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5, attn_implementation="eager")
    return name, config, cls


MODELS = [  # name, hidden, heads, ffn, layers, vocabulary, positions
    bert("bert_h24", 24, 1, 40, 2, 61, 23, labels=1),
    bert("bert_h36", 36, 3, 56, 2, 96, 33, labels=3),
    bert("bert_h64", 64, 4, 48, 2, 80, 40, labels=2),
    bert("bert_deep", 28, 4, 40, 4, 67, 21, labels=4),
    bert("bert_gelu_new", 20, 2, 33, 1, 60, 20, act="gelu_new"),
    bert("bert_relu", 20, 2, 33, 1, 60, 20, act="relu"),
    bert("bert_base", 24, 2, 40, 2, 60, 25, cls=tf.BertModel),
    bert("bert_mlm", 24, 2, 40, 2, 60, 25, cls=tf.BertForMaskedLM),
    bert("bert_pretraining", 24, 2, 40, 2, 60, 25, cls=tf.BertForPreTraining),
    bert("bert_sharded", 24, 2, 40, 2, 60, 25, labels=3),
    roberta("roberta_h24", 24, 2, 40, 2, 300, 38, labels=5),
    roberta("roberta_h48", 48, 3, 60, 3, 90, 35, labels=2),
    roberta("roberta_base", 24, 2, 40, 2, 70, 29, cls=tf.RobertaModel),
    roberta("roberta_mlm", 24, 2, 40, 2, 70, 29, cls=tf.RobertaForMaskedLM),
]
WITH_TYPES = {"bert_h24", "bert_h36", "bert_h64"}
WITH_HOLES = {"bert_h36", "roberta_h24"}


def write_model(out, name, config, cls, seed):
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    model = randomise(cls(config), seed)
    model.save_pretrained(folder, max_shard_size="24KB" if name == "bert_sharded" else "5GB")
    if name == "bert_base":          # sentence-transformers' old exports: no prefix, and a buffer that is no weight
        positions = torch.arange(config.max_position_embeddings)[None]
        rename_tensors(folder, lambda k: k, {"embeddings.position_ids": positions})
    if name == "bert_pretraining":   # bert-base-uncased: LayerNorm.gamma and .beta
        rename_tensors(folder, lambda k: k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"))
    if name == "bert_h36":
        with open(os.path.join(folder, "vocab.txt"), "w") as f:
            f.write("\n".join(bert_vocab(config.vocab_size)) + "\n")
    if name == "roberta_h24":
        write_byte_bpe(folder, config.vocab_size)
    write_io(model, os.path.join(folder, "io.safetensors"), 5, 13, seed + 1, types=name in WITH_TYPES)
    if name in WITH_HOLES:
        write_io(model, os.path.join(folder, "io_holes.safetensors"), 3, 11, seed + 2, masks="holes")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    for i, (name, config, cls) in enumerate(MODELS):
        write_model(sys.argv[1], name, config, cls, seed=1000 + 10 * i)
    write_wide(sys.argv[1])


if __name__ == "__main__":
    main()
