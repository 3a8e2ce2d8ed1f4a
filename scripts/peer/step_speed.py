"""Time and peak memory of one training step in PyTorch, at the real models' sizes: what `cald bench` is held against.

usage: step_speed.py [--size mini|base] [--mode finetune|unguided|target|trajectory] [--batch N] [--seq N] [--k N]
                     [--threads N] [--steps N] [--dtype f32|bf16] [--count]
Needs torch and transformers. mini is MiniLM-L6 (BERT, 6 layers of 384), base is RoBERTa-base (12 layers of 768).
Random weights and tokens, no pads: speed does not depend on their values. Dropout 0.1 on the student and on
trajectory's teacher; frozen teachers run without. L_LD in the form `released`, no KD; fused AdamW, set_to_none.
Prints one JSON line: median_s and min_s of a step after two for warm-up, tokens_per_s (from the median),
peak_rss_bytes of the process and start_rss_bytes before the models (the libraries alone), loss of the last step; with
--count also flop_per_step, by PyTorch's own counter over one more step.
"""
import argparse
import json
import math
import statistics
import time

import torch
import torch.nn.functional as fn
import transformers as tf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

SIZES = {
    "mini": (tf.BertForSequenceClassification, tf.BertConfig,
             dict(vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                  intermediate_size=1536, max_position_embeddings=512)),
    "base": (tf.RobertaForSequenceClassification, tf.RobertaConfig,
             dict(vocab_size=50265, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
                  intermediate_size=3072, max_position_embeddings=514, type_vocab_size=1)),
}


class Linformer(nn.Module):
    """Self-attention over k learnt slots, for batches without pads: rank is the position, len the sequence."""

    def __init__(self, attention, positions, k):
        super().__init__()
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        self.heads, self.rate = attention.num_attention_heads, attention.dropout.p
        self.E, self.F = (nn.Parameter(torch.randn(positions, k)) for _ in range(2))

    def forward(self, x, *args, **kwargs):
        B, S, D = x.shape
        split = lambda z: z.view(B, -1, self.heads, D // self.heads).transpose(1, 2)
        keys = split(self.E[:S].T @ self.key(x) / math.sqrt(S))                                         # (B,H,k,d)
        values = split(self.F[:S].T @ self.value(x) / math.sqrt(S))
        y = fn.scaled_dot_product_attention(split(self.query(x)), keys, values,
                                            dropout_p=self.rate if self.training else 0.0)
        return y.transpose(1, 2).reshape(B, S, D), None


def rss():
    """The largest resident size so far; getrusage's is never less than what the starting process had."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:")) * 1024


def make_models(a):
    """(student, teacher or None)."""
    cls, make_config, size = SIZES[a.size]
    config = make_config(num_labels=2, attn_implementation="sdpa", **size)
    student = cls(config).train()
    if a.mode != "finetune":
        for layer in student.base_model.encoder.layer:
            layer.attention.self = Linformer(layer.attention.self, config.max_position_embeddings, a.k)
    teacher = cls(config).train(a.mode == "trajectory") if a.mode in ("target", "trajectory") else None
    return student, teacher


def make_step(a, student, teacher):
    """A function that does one step and returns its loss."""
    limit = student.config.vocab_size
    ids, labels = torch.randint(5, limit, (a.batch, a.seq)), torch.randint(0, 2, (a.batch,))
    optimisers = [torch.optim.AdamW(m.parameters(), 1e-5, weight_decay=0.0, fused=True)
                  for m in (student, teacher if a.mode == "trajectory" else None) if m is not None]
    amp = lambda: torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16")
    run = lambda m: m(input_ids=ids, output_hidden_states=teacher is not None)
    ce = lambda out: fn.cross_entropy(out.logits.float(), labels)

    def guide():
        if a.mode == "target":
            with torch.no_grad(), amp():
                return run(teacher).hidden_states
        with amp():
            out = run(teacher)
            loss = ce(out)
        loss.backward()
        return [h.detach() for h in out.hidden_states]

    def step():
        states = guide() if teacher is not None else None
        with amp():
            out = run(student)
            loss = ce(out)
            if states is not None:
                loss = loss + sum(fn.mse_loss(h.float(), g.float()) for h, g in zip(out.hidden_states, states))
        loss.backward()
        for o in optimisers:
            o.step()
            o.zero_grad(set_to_none=True)
        return loss.item()

    return step


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", default="mini", choices=list(SIZES))
    p.add_argument("--mode", default="target", choices=["finetune", "unguided", "target", "trajectory"])
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--seq", type=int, default=64)
    p.add_argument("--k", type=int, default=32)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    p.add_argument("--count", action="store_true")
    a = p.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(a.threads)
    start = rss()
    step = make_step(a, *make_models(a))
    times, loss = [], 0.0
    for _ in range(a.steps + 2):
        before = time.perf_counter()
        loss = step()
        times.append(time.perf_counter() - before)
    times = times[2:]
    median = statistics.median(times)
    result = dict(vars(a), median_s=round(median, 4), min_s=round(min(times), 4),
                  tokens_per_s=round(a.batch * a.seq / median, 1), peak_rss_bytes=rss(), start_rss_bytes=start,
                  loss=loss, torch=torch.__version__)
    if a.count:
        with FlopCounterMode(display=False) as counter:
            step()
        result["flop_per_step"] = counter.get_total_flops()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
