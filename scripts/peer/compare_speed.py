"""Our training step against PyTorch's, in turns on the same machine: ratios of time and peak memory.

usage: compare_speed.py CALD [--size mini|base] [--mode finetune|unguided|target|trajectory] [--batch N] [--seq N]
                        [--k N] [--dtype f32|bf16] [--pairs N] [--steps N] [--threads N]
CALD is the program. Needs torch and transformers. The model has random weights (make_random_model.py): MiniLM's size
(mini) or RoBERTa-base's (base). Each of the `pairs` pairs runs `cald bench step` and then step_speed.py: random tokens
without pads, the same batch, length, k, losses, dropout and optimizer, two steps for warm-up and then `steps` measured
ones, whose median counts; the ratios are medians over the pairs. Before them both count their matrix products' FLOP,
which shows that the two do the same work.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def run_ours(a, model, folder):
    """(median seconds, peak resident bytes, FLOP of a step)"""
    out = os.path.join(folder, "step.json")
    command = [a.cald, "bench", "step", model, "--mode", a.mode, "--shape", f"{a.batch},{a.seq}", "--iterations",
               str(a.steps), "--threads", str(a.threads), "--dtype", a.dtype, "--learning-rate", "1e-5", "--json", out]
    if a.mode != "finetune":
        command += ["--mixer", "linformer", "--mixer-k", str(a.k)]
    if a.mode == "target":
        command += ["--teacher", model]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(out) as f:
        result = json.load(f)
    whole = result["benchmarks"][0]["name"]
    seconds = [b["real_time"] / 1e3 for b in result["benchmarks"] if b["name"] == whole]
    context = result["context"]
    return statistics.median(seconds), context["peak_resident_bytes"], context["flop_per_step"]


def run_peer(a, *more):
    command = [sys.executable, os.path.join(HERE, "step_speed.py"), "--size", a.size, "--mode", a.mode, "--batch",
               str(a.batch), "--seq", str(a.seq), "--k", str(a.k), "--threads", str(a.threads), "--steps", str(a.steps),
               "--dtype", a.dtype, *more]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("cald")
    p.add_argument("--mode", default="target", choices=["finetune", "unguided", "target", "trajectory"])
    p.add_argument("--size", default="mini", choices=["mini", "base"])
    p.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    for name, default in dict(batch=32, seq=128, k=128, pairs=5, steps=5, threads=2).items():
        p.add_argument("--" + name, type=int, default=default)
    a = p.parse_args()
    time_ratios, memory_ratios = [], []
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model")
        subprocess.run([sys.executable, os.path.join(HERE, "make_random_model.py"), model, "--size", a.size],
                       check=True, capture_output=True)
        for i in range(a.pairs):
            ours, our_bytes, our_flop = run_ours(a, model, folder)
            peer = run_peer(a, *([] if i else ["--count"]))
            if i == 0:
                print(f"a step's products: cald {our_flop / 1e9:.4f} GFLOP, PyTorch {peer['flop_per_step'] / 1e9:.4f} GFLOP")
            time_ratios.append(peer["median_s"] / ours)
            memory_ratios.append(our_bytes / peer["peak_rss_bytes"])
            print(f"pair {i + 1}: cald {ours:.3f} s, {our_bytes / 2**20:.0f} MiB; PyTorch {peer['median_s']:.3f} s, "
                  f"{peer['peak_rss_bytes'] / 2**20:.0f} MiB (of which {peer['start_rss_bytes'] / 2**20:.0f} MiB before "
                  "the models)", flush=True)
    print(f"{a.size} {a.mode} {a.dtype} B{a.batch} S{a.seq} k{a.k}, {a.threads} threads, median of {a.pairs} pairs: "
          f"{statistics.median(time_ratios):.2f}x PyTorch's speed, {statistics.median(memory_ratios):.2f}x its peak "
          "memory")


if __name__ == "__main__":
    main()
