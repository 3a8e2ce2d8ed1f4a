"""Our training step against PyTorch's, in turns on the same machine: ratios of time and peak memory.

usage: compare_speed.py CALD MODEL [--mode finetune|unguided|target|trajectory] [--batch N] [--seq N] [--k N]
                        [--pairs N] [--steps N] [--threads N] [--size mini|base]
CALD is the program, MODEL a checkpoint of the size named (cache/model is `mini`). Needs torch and transformers. Each of
the `pairs` pairs runs our program and then scripts/peer/step_speed.py with the same batch, length, k, losses, dropout
and optimizer. A step's time is the median after two for warm-up; the ratios are medians over the pairs.
"""
import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = "the film is a good story and it has bad acting but we like its plot very much".split()


def write_texts(path, rows, words):
    """Texts of more words than --seq, so that every batch is full and none has pads."""
    draw = random.Random(0)
    with open(path, "w") as out:
        out.write("sentence\tlabel\n")
        for i in range(rows):
            out.write(" ".join(draw.choice(WORDS) for _ in range(words)) + f"\t{i % 2}\n")


def run_ours(a, folder, number):
    out = os.path.join(folder, f"run{number}")
    command = [a.cald, "finetune" if a.mode == "finetune" else "convert", a.start, "--train", folder + "/train.tsv",
               "--order", "given", "--max-length", str(a.seq), "--batch-size", str(a.batch), "--steps", str(a.steps),
               "--threads", str(a.threads), "--output", out]
    if a.mode != "finetune":
        command += ["--mode", a.mode, "--mixer", "linformer", "--mixer-k", str(a.k)]
    if a.mode == "target":
        command += ["--teacher", a.start]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    seconds = [json.loads(line)["seconds"] for line in open(out + "/timing.jsonl")]
    with open(out + "/cost.json") as f:
        return statistics.median(seconds[2:]), json.load(f)["peak_resident_bytes"]


def run_peer(a):
    command = [sys.executable, os.path.join(HERE, "step_speed.py"), "--size", a.size, "--mode", a.mode, "--batch",
               str(a.batch), "--seq", str(a.seq), "--k", str(a.k), "--threads", str(a.threads), "--steps", str(a.steps)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return result["median_s"], result["peak_rss_bytes"], result["start_rss_bytes"]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("cald")
    p.add_argument("model")
    p.add_argument("--mode", default="target")
    p.add_argument("--size", default="mini")
    for name, default in dict(batch=32, seq=128, k=128, pairs=5, steps=5, threads=2).items():
        p.add_argument("--" + name, type=int, default=default)
    a = p.parse_args()
    folder = tempfile.mkdtemp()
    write_texts(folder + "/train.tsv", a.batch * 2, a.seq + 2)
    subprocess.run([a.cald, "finetune", a.model, "--train", folder + "/train.tsv", "--steps", "0", "--output",
                    folder + "/start"], check=True, stderr=subprocess.DEVNULL)
    a.start = folder + "/start/model"
    time_ratios, memory_ratios = [], []
    for i in range(a.pairs):
        ours, our_bytes = run_ours(a, folder, i)
        peer, peer_bytes, libraries = run_peer(a)
        time_ratios.append(peer / ours)
        memory_ratios.append(our_bytes / peer_bytes)
        print(f"pair {i + 1}: cald {ours:.3f} s, {our_bytes / 2**20:.0f} MiB; PyTorch {peer:.3f} s, "
              f"{peer_bytes / 2**20:.0f} MiB (of which {libraries / 2**20:.0f} MiB before the models)", flush=True)
    print(f"{a.size} {a.mode} B{a.batch} S{a.seq} k{a.k}, {a.threads} threads, median of {a.pairs} pairs: "
          f"{statistics.median(time_ratios):.2f}x PyTorch's speed, {statistics.median(memory_ratios):.2f}x its peak memory")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
