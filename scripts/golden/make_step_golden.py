"""Writes training runs of the PyTorch oracle (scripts/peer/cald_text.py) that the C++ trainer must reproduce.

usage: make_step_golden.py OUT         (OUT is tests/golden; OUT/models must be there: make_model_golden.py)

OUT/steps/train.tsv                    sentence <tab> label, 16 rows, read in the given order, 4 a step
OUT/steps/train_pairs.tsv              sentence1 <tab> sentence2 <tab> label
OUT/steps/models/<name>                what runs start from: teachers and waypoints (fine-tuned), converted students
OUT/steps/<run>.json                   options: the flags, paths relative to OUT, all dropout 0
                                       losses: {loss, ce, kd, ld, teacher_ce: [per step]}, f64, before each update
                                       f32_distance: {term: max over steps of |f32 - f64| / |f64|} of PyTorch's own f32,
                                       the larger one of both orders of the Linformer's products
                                       bf16_losses, bf16_distance: the same under autocast, for the runs of BF16_RUNS
                                       learning_rate: [per step]
                                       gradients: {f32, bf16: {parameter: distance}} of step 1, for GRADIENT_RUNS: the
                                       largest |g - g64| (L2) of SAMPLES runs whose weights are moved by up to half a
                                       unit in the dtype's last place, so that lucky roundings do not pass for accuracy
                                       final, final_f32_distance: the file below, {tensor: max |f32 - f64|}
OUT/steps/<run>.safetensors            some of the weights after the last step, from f64; `teacher/` precedes those of
                                       trajectory's teacher
OUT/steps/<run>_gradients.safetensors  of GRADIENT_RUNS: gradients of step 1 for every parameter, f64, before clipping
"""
import json
import os
import shutil
import sys

import torch
import transformers as tf
from safetensors.torch import save_file

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "peer"), os.path.join(ROOT, "golden")]
import cald_text as peer              # noqa: E402
from make_model_golden import SENTENCES  # noqa: E402

BERT, ROBERTA = "models/bert_h36", "models/roberta_h24"
BASE = {"train": "steps/train.tsv", "order": "given", "batch-size": 4, "steps": 20, "learning-rate": 1e-3,
        "schedule": "linear", "schedule-floor": 0.005, "warmup": 0, "weight-decay": 0.0, "clip": 0.0,
        "dropout": 0.0, "teacher-dropout": 0.0, "max-length": 33}
AT = "steps/models/"

# Written first, in this order: later ones start from earlier ones. Each is the oracle's own --output.
STARTS = {
    "bert_finetuned": {"model": BERT, "mode": "finetune", "keep-waypoints": 2, "warmup": 4},
    "bert_none": {"model": BERT, "mode": "unguided", "steps": 0, "mixer-k": 8, "seed": 1},
    "bert_key_value": {"model": BERT, "mode": "unguided", "steps": 0, "mixer-k": 7, "seed": 2, "mixer-share": "key-value"},
    "bert_layerwise": {"model": BERT, "mode": "unguided", "steps": 0, "mixer-k": 8, "seed": 3, "mixer-share": "layerwise"},
    "bert_finetuned_none": {"model": AT + "bert_finetuned/waypoints/2", "mode": "unguided", "steps": 0, "mixer-k": 8, "seed": 4},
    "roberta_finetuned": {"model": ROBERTA, "mode": "finetune"},
    "roberta_finetuned_none": {"model": AT + "roberta_finetuned", "mode": "unguided", "steps": 0, "mixer-k": 5, "seed": 5},
}
TEACHER = {"teacher": AT + "bert_finetuned/waypoints/2"}

RUNS = {
    "bert_finetune": {"model": BERT, "mode": "finetune", "warmup": 4},
    "bert_finetune_decay_clip": {"model": BERT, "mode": "finetune", "weight-decay": 0.1, "clip": 0.5,
                                 "schedule": "cosine", "schedule-floor": 0.1, "warmup": 3},
    "bert_finetune_pairs": {"model": BERT, "mode": "finetune", "train": "steps/train_pairs.tsv",
                            "text-column": "sentence1", "pair-column": "sentence2", "schedule": "constant"},
    "bert_unguided": {"model": BERT, "mode": "unguided", "student": AT + "bert_none", "new-learning-rate": 1e-2,
                      "schedule": "exponential", "warmup": 2},
    "bert_target": {"model": BERT, "mode": "target", **TEACHER, "student": AT + "bert_finetuned_none"},
    "bert_target_key_value": {"model": BERT, "mode": "target", **TEACHER, "student": AT + "bert_key_value",
                              "new-learning-rate": 5e-3, "a-ld": 0.5},
    "bert_target_paper": {"model": BERT, "mode": "target", **TEACHER, "student": AT + "bert_finetuned_none",
                          "preset": "paper", "a-kd": 0.7, "a-ld": 2.0},
    "bert_target_hybrid": {"model": BERT, "mode": "target", **TEACHER, "student": AT + "bert_layerwise",
                           "a-kd": 0.5, "hybrid-stop": 12},
    "bert_trajectory_1": {"model": BERT, "mode": "trajectory", "student": AT + "bert_layerwise", "a-kd": 0.3,
                          "teacher-learning-rate": 5e-4, "warmup": 2},
    "bert_trajectory_2": {"model": BERT, "mode": "trajectory", "student": AT + "bert_none", "teacher-interval": 2,
                          "schedule": "constant"},
    "bert_waypoint": {"model": BERT, "mode": "waypoint", "student": AT + "bert_key_value", "warmup": 4,
                      "waypoints": AT + "bert_finetuned"},
    "roberta_finetune": {"model": ROBERTA, "mode": "finetune"},
    "roberta_target": {"model": ROBERTA, "mode": "target", "teacher": AT + "roberta_finetuned",
                       "student": AT + "roberta_finetuned_none", "a-kd": 0.4, "clip": 1.0},
}

BF16_RUNS = ["bert_finetune", "bert_target", "bert_trajectory_1", "roberta_target"]
GRADIENT_RUNS = BF16_RUNS + ["bert_finetune_decay_clip", "bert_target_hybrid", "bert_trajectory_2"]
SAMPLES = 8

# Kept of the final weights: one of each kind. A key's bias is not: in full attention its gradient is rounding only.
FINAL = ["embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight", "embeddings.LayerNorm.weight",
         "encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.self.value.bias",
         "encoder.layer.0.attention.self.E", "encoder.layer.0.attention.self.F",
         "encoder.layer.1.output.dense.bias", "encoder.layer.1.output.LayerNorm.bias"]


def arguments(out, options, **more):
    """The oracle's parsed flags; paths become absolute."""
    o = peer.make_parser().parse_args(["?"])
    place = lambda path: os.path.join(out, path)
    for key, value in {**BASE, **options, **more}.items():
        if key in ("model", "train", "teacher", "student", "waypoints"):
            value = place(value)
        setattr(o, key.replace("-", "_"), value)
    return o


def write_starts(out):
    for name, options in STARTS.items():
        folder = os.path.join(out, AT + name)
        peer.run(arguments(out, options, output=folder))
        if "keep-waypoints" in options:                        # the last waypoint is the model itself
            for file in ("config.json", "model.safetensors", "vocab.txt"):
                os.remove(os.path.join(folder, file))


def open_run(out, options, dtype):
    """(flags, student, teachers, iterator of records) of a run in f32, f64 or, by autocast, bf16."""
    o = arguments(out, options, dtype="f32" if dtype == "bf16" else dtype, bf16=dtype == "bf16")
    rows = peer.read_rows(o.train, o.text_column, o.pair_column, o.label_column)
    student, teachers = peer.build(o)
    batches = peer.batch_source(o, tf.AutoTokenizer.from_pretrained(o.model), rows, student.config)
    return o, student, teachers, peer.train(o, student, teachers, batches)


def record_run(out, options, dtype):
    """(records, final weights in f64)."""
    o, student, teachers, steps = open_run(out, options, dtype)
    records = list(steps)
    final = {n: p.detach().double() for n, p in student.named_parameters()
             if n.startswith("classifier") or n.split(".", 1)[1] in FINAL}
    if o.mode == "trajectory":
        final.update({"teacher/" + n: p.detach().double() for n, p in teachers[0].named_parameters()
                      if n == "classifier.weight" or n.endswith("layer.0.attention.self.query.weight")})
    return records, final


def first_gradients(out, options, dtype, sample=None):
    """{parameter: gradient of step 1 in f64}; a sample's weights are moved by up to half a unit in the dtype's last
    place."""
    _, student, teachers, steps = open_run(out, options, dtype)
    gradients = {}
    unit = 2 ** -8 if dtype == "bf16" else 2 ** -23
    generator = torch.Generator().manual_seed(sample or 0)
    for model in [student, *teachers] if sample is not None else []:
        for p in model.parameters():
            p.data *= 1 + unit / 2 * (2 * torch.rand(p.shape, generator=generator, dtype=torch.float64) - 1)
    for name, p in student.named_parameters():
        def keep(p, name=name):
            gradients.setdefault(name, p.grad.double().clone())
        p.register_post_accumulate_grad_hook(keep)
    next(steps)
    return gradients


def write_gradients(out, name, options):
    exact = first_gradients(out, options, "f64")
    distances = {}
    for dtype in ("f32", "bf16"):
        far = distances[dtype] = dict.fromkeys(exact, 0.0)
        for sample in range(SAMPLES):
            peer.Linformer.sequence_first = "student" in options and sample % 2 == 1
            for n, g in first_gradients(out, options, dtype, sample).items():
                far[n] = max(far[n], (g - exact[n]).norm().item())
    peer.Linformer.sequence_first = False
    save_file({n: g.float().contiguous() for n, g in exact.items()},
              os.path.join(out, "steps", name + "_gradients.safetensors"))
    return distances


def compare_losses(records, others):
    """({term: losses of `others`}, {term: the largest relative distance of a step})."""
    losses, distance = {}, {}
    for term in ("loss", "ce", "kd", "ld", "teacher_ce"):
        pairs = [(r[term], q[term]) for r, q in zip(records, others) if term in r]
        if pairs:
            losses[term] = [b for _, b in pairs]
            distance[term] = max(abs(a - b) / abs(a) for a, b in pairs)
    return losses, distance


def record_bf16(out, options, records):
    losses, distance = compare_losses(records, record_run(out, options, "bf16")[0])
    return dict(bf16_losses=losses, bf16_distance=distance)


def write_run(out, name, options):
    records, final = record_run(out, options, "f64")
    losses, _ = compare_losses(records, records)
    distance, far = {}, {}
    for peer.Linformer.sequence_first in [False, True] if "student" in options else [False]:
        records32, final32 = record_run(out, options, "f32")
        for term, d in compare_losses(records, records32)[1].items():
            distance[term] = max(d, distance.get(term, 0))
        for n in final:
            far[n] = max((final[n] - final32[n]).abs().max().item(), far.get(n, 0))
    peer.Linformer.sequence_first = False
    assert distance["loss"] < 1e-5, (name, distance)         # a KL near zero cancels more than the loss does
    print(f"{name:26s} loss {losses['loss'][0]:.4f} -> {losses['loss'][-1]:.4f}  f32 {max(distance.values()):.1e} "
          f"weights {max(far.values()):.1e} ({max(far, key=far.get)})")
    save_file({n: t.float().contiguous() for n, t in final.items()}, os.path.join(out, "steps", name + ".safetensors"))
    result = dict(name=name, options={**BASE, **options}, losses=losses, f32_distance=distance,
                  learning_rate=[r["learning_rate"] for r in records],
                  final=f"steps/{name}.safetensors", final_f32_distance=far)
    if name in BF16_RUNS:
        result.update(record_bf16(out, options, records))
    if name in GRADIENT_RUNS:
        result["gradients"] = write_gradients(out, name, options)
    with open(os.path.join(out, "steps", name + ".json"), "w") as f:
        json.dump(result, f, indent=1)
        f.write("\n")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = os.path.abspath(sys.argv[1])
    shutil.rmtree(os.path.join(out, "steps"), ignore_errors=True)
    os.makedirs(os.path.join(out, "steps"))
    with open(os.path.join(out, BASE["train"]), "w") as f:
        f.write("sentence\tlabel\n" + "".join(f"{s}\t{i * 7 % 3}\n" for i, s in enumerate(SENTENCES)))
    with open(os.path.join(out, "steps/train_pairs.tsv"), "w") as f:
        pairs = zip(SENTENCES, SENTENCES[3:] + SENTENCES[:3])
        f.write("sentence1\tsentence2\tlabel\n" + "".join(f"{a}\t{b}\t{i % 3}\n" for i, (a, b) in enumerate(pairs)))
    write_starts(out)
    for name, options in RUNS.items():
        write_run(out, name, options)


if __name__ == "__main__":
    main()
