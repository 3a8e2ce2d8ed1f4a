"""Training on real texts, `cald convert` against PyTorch, in turns: tokens a second, pads not counted.

usage: compare_epoch.py CALD MODEL TRAIN.tsv [--steps N] [--pairs N] [--batch N] [--k N] [--threads N] [--dtype f32|bf16]
CALD is the program, MODEL a BERT with a head (scripts/run leaves runs/teacher/model), TRAIN.tsv has the columns sentence
and label (scripts/fetch makes it).
Needs torch and transformers. Target mode from MODEL itself as the teacher, Linformer, L_LD in the form `released`,
dropout 0.1 on the student, AdamW. PyTorch runs twice: over shuffled batches padded to their longest, as most training
scripts have them, and over batches of like lengths (chunks of 50 shuffled batches sorted by length), as ours are. The
models are read and the texts tokenized before the clock starts, on both sides; the first steps of each are not counted.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
WARMUP = 4


def peer(a, order):
    """Valid tokens a second in PyTorch."""
    import torch
    import torch.nn.functional as fn
    import transformers as tf
    import cald_text

    class Linformer(cald_text.Linformer):
        def forward(self, x, *args, **kwargs):
            B, S, D = x.shape
            split = lambda z: z.view(B, -1, self.heads, D // self.heads).transpose(1, 2)
            valid = self.mask.to(self.E.dtype)
            rank = (self.mask.cumsum(1) - 1).clamp(min=0)
            scale = (valid / valid.sum(1, keepdim=True).sqrt())[..., None]
            keys = split((self.E[rank] * scale).transpose(1, 2) @ self.key(x))
            values = split((self.F[rank] * scale).transpose(1, 2) @ self.value(x))
            y = fn.scaled_dot_product_attention(split(self.query(x)), keys, values,
                                                dropout_p=0.1 if self.training else 0.0)
            return y.transpose(1, 2).reshape(B, S, D), None

    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    load = lambda: tf.AutoModelForSequenceClassification.from_pretrained(a.model, num_labels=2,
                                                                         attn_implementation="sdpa")
    student, teacher = load().train(), load().eval()
    for layer in student.base_model.encoder.layer:
        E, F = (torch.nn.Parameter(torch.randn(student.config.max_position_embeddings, a.k)) for _ in range(2))
        layer.attention.self = Linformer(layer.attention.self, E, F)
    optimiser = torch.optim.AdamW(student.parameters(), 1e-5, weight_decay=0.0, fused=True)
    tokenizer = tf.AutoTokenizer.from_pretrained(a.model)
    rows = [(tokenizer(text)["input_ids"], label) for text, _, label in cald_text.read_rows(a.train, "sentence", None,
                                                                                            "label")]
    order_of = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    if order == "bucketed":
        chunk = 50 * a.batch
        chunks = [sorted(order_of[i:i + chunk], key=lambda r: len(rows[r][0])) for i in range(0, len(order_of), chunk)]
        batches = [c[i:i + a.batch] for c in chunks for i in range(0, len(c), a.batch)]
        batches = [batches[i] for i in torch.randperm(len(batches), generator=torch.Generator().manual_seed(1)).tolist()]
    else:
        batches = [order_of[i:i + a.batch] for i in range(0, len(order_of), a.batch)]
    tokens = 0
    for step, chosen in enumerate(batches[:WARMUP + a.steps]):
        if step == WARMUP:
            tokens, start = 0, time.perf_counter()
        chosen = [rows[r] for r in chosen]
        width = max(len(ids) for ids, _ in chosen)
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in chosen])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in chosen])
        labels = torch.tensor([label for _, label in chosen])
        tokens += int(mask.sum())
        for mixer in [layer.attention.self for layer in student.base_model.encoder.layer]:
            mixer.mask = mask
        with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16"):
            with torch.no_grad():
                states = teacher(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
            out = student(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            loss = fn.cross_entropy(out.logits.float(), labels)
            loss = loss + sum(fn.mse_loss(h.float(), g.float()) for h, g in zip(out.hidden_states, states))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        loss.item()
    return tokens / (time.perf_counter() - start)


def ours(a):
    with tempfile.TemporaryDirectory() as folder:
        run = os.path.join(folder, "run")
        subprocess.run([a.cald, "convert", a.model, "--mode", "target", "--teacher", a.model, "--mixer", "linformer",
                        "--mixer-k", str(a.k), "--train", a.train, "--batch-size", str(a.batch), "--steps",
                        str(a.steps), "--threads", str(a.threads), "--dtype", a.dtype, "--dropout", "0.1",
                        "--learning-rate", "1e-5", "--output", run], check=True, capture_output=True)
        with open(os.path.join(run, "cost.json")) as f:
            return json.load(f)["tokens_per_second"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cald"), p.add_argument("model"), p.add_argument("train")
    p.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    p.add_argument("--peer", choices=["shuffled", "bucketed"], help="run this alone, here, and print its rate")
    for name, default in dict(steps=60, pairs=5, batch=32, k=32, threads=2).items():
        p.add_argument("--" + name, type=int, default=default)
    a = p.parse_args()
    if a.peer:
        print(json.dumps(peer(a, a.peer)))
        return
    ratios = {"shuffled": [], "bucketed": []}
    for pair in range(a.pairs):
        rate = ours(a)
        line = f"pair {pair + 1}: cald {rate:.0f} tokens/s"
        for order in ratios:
            out = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--peer", order], check=True,
                                 capture_output=True, text=True).stdout
            peer_rate = json.loads(out.splitlines()[-1])
            ratios[order].append(rate / peer_rate)
            line += f", PyTorch {order} {peer_rate:.0f} tokens/s"
        print(line, flush=True)
    for order, r in ratios.items():
        print(f"against {order} batches: {statistics.median(r):.2f} x (median of {len(r)}, {min(r):.2f} to {max(r):.2f})")


if __name__ == "__main__":
    main()
