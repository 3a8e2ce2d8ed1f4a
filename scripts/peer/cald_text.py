"""CALD on text in PyTorch: the oracle that `cald finetune` and `cald convert` are compared with, step for step.

usage: cald_text.py MODEL --mode finetune|unguided|target|trajectory|waypoint --train FILE [options]
Needs torch, transformers and safetensors. Prints one JSON line a step: step, loss, ce, kd, ld, teacher_ce (what
applies), learning_rate. There is no dropout: a step's numbers depend on the weights and the data alone.

A converted student's directory has the transformer's tensors and, beside them, the new parameters
<encoder>.encoder.layer.i.attention.self.E and .F, [max_position_embeddings, k]:
    --mixer-share none        E and F in every layer
    --mixer-share key-value   E in every layer; it serves the values too
    --mixer-share layerwise   one E, under layer 0's name, for keys and values of all layers

The source: He & Garner, "Joint Fine-tuning and Conversion of Pretrained Speech and Language Models towards Linear
Complexity", ICLR 2025; Linformer: Wang et al., 2020.
"""
import argparse
import copy
import csv
import json
import math
import os
import shutil

import torch
import torch.nn.functional as fn
import transformers as tf
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

tf.logging.set_verbosity_error()
tf.logging.disable_progress_bar()


class Linformer(nn.Module):
    """In the place of BertSelfAttention: K' = E[rank]^T (x W_K + b) / sqrt(len), V' likewise with F.

    rank is a token's index among its sample's valid tokens and len their number, so a pad changes nothing. Every
    position, pads too, is a query; the softmax runs over the k slots and needs no mask. With `sequence_first` the two
    linear maps change places, (E[rank]^T x) W_K + (E[rank]^T 1) b_K: the same function, rounded elsewhere.
    """

    sequence_first = False

    def __init__(self, attention, E, F=None):
        super().__init__()
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        self.heads = attention.num_attention_heads
        self.dropout = attention.dropout
        self.E = E                              # (P,k)
        self.F = F                              # (P,k); None: E serves both
        self.mask = None                        # (B,S), set before each forward

    def forward(self, x, *args, **kwargs):
        B, S, D = x.shape
        split = lambda z: z.view(B, -1, self.heads, D // self.heads).transpose(1, 2)                     # (B,H,.,d)
        valid = self.mask.to(self.E.dtype)
        rank = (self.mask.cumsum(1) - 1).clamp(min=0)
        scale = (valid / valid.sum(1, keepdim=True).sqrt())[..., None]                                   # (B,S,1)
        E = self.E[rank] * scale                                                                         # (B,S,k)
        F = E if self.F is None else self.F[rank] * scale
        keys = split(self.project(E, self.key, x))                                                       # (B,H,k,d)
        values = split(self.project(F, self.value, x))
        scores = split(self.query(x)) @ keys.transpose(2, 3) / math.sqrt(D // self.heads)                # (B,H,S,k)
        y = self.dropout(scores.softmax(-1)) @ values
        return y.transpose(1, 2).reshape(B, S, D), None

    def project(self, E, linear, x):
        E = E.transpose(1, 2)                                                                            # (B,k,S)
        if self.sequence_first:
            return (E @ x) @ linear.weight.T + E.sum(2, keepdim=True) * linear.bias
        return E @ linear(x)


def layers_of(model):
    return model.base_model.encoder.layer


def mixers_of(model):
    return [layer.attention.self for layer in layers_of(model) if isinstance(layer.attention.self, Linformer)]


def convert(model, k, share, seed):
    """A copy of the model with Linformer mixers; E and F are drawn from N(0,1), all else is copied."""
    student = copy.deepcopy(model)
    g = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    draw = lambda: nn.Parameter(torch.randn(model.config.max_position_embeddings, k, generator=g).to(dtype))
    shared = draw() if share == "layerwise" else None
    for layer in layers_of(student):
        E = draw() if shared is None else shared
        layer.attention.self = Linformer(layer.attention.self, E, draw() if share == "none" else None)
    student.config.cald = dict(mixers=[dict(name="linformer", options=dict(k=k, share=share))] * len(layers_of(student)))
    return student


def load_model(folder, dtype=torch.float32, labels=None):
    """A transformer or a converted student (told by its E tensors) with a classification head, without dropout."""
    config = tf.AutoConfig.from_pretrained(folder)
    if not any("SequenceClassification" in a for a in config.architectures or []) and labels:
        config.num_labels = labels
    model = tf.AutoModelForSequenceClassification.from_pretrained(folder, config=config)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    path = os.path.join(folder, "model.safetensors")
    if os.path.exists(path):
        with safe_open(path, "pt") as f:
            extra = {n: nn.Parameter(f.get_tensor(n)) for n in f.keys() if n.endswith((".self.E", ".self.F"))}
        if extra:
            name = f"{model.base_model_prefix}.encoder.layer.{{}}.attention.self.{{}}"
            for i, layer in enumerate(layers_of(model)):
                E = extra.get(name.format(i, "E"), extra[name.format(0, "E")])
                layer.attention.self = Linformer(layer.attention.self, E, extra.get(name.format(i, "F")))
    return model.to(dtype)


def save_model(model, folder, tokenizer_from=None):
    """Hugging Face's layout; a parameter that layers share is written once, under the first layer's name."""
    os.makedirs(folder, exist_ok=True)
    tensors = {n: p.detach().float().contiguous() for n, p in model.named_parameters()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = "float32"
    config.save_pretrained(folder)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        source = os.path.join(tokenizer_from or "", name)
        if tokenizer_from and os.path.exists(source):
            shutil.copy(source, folder)


def forward(model, batch):
    for mixer in mixers_of(model):
        mixer.mask = batch["attention_mask"]
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    return model(**inputs, output_hidden_states=True)


def ce_loss(out, batch):
    """Mean over the samples of -log softmax(logits)[label]."""
    logits = out.logits.to(torch.promote_types(out.logits.dtype, torch.float32))
    return fn.cross_entropy(logits, batch["labels"])


def kd_loss(student, teacher, temperature, preset):
    """Mean over the samples of KL(softmax(teacher/T) || softmax(student/T)); times T^2 in `released`."""
    kl = fn.kl_div(fn.log_softmax(student / temperature, -1), fn.log_softmax(teacher / temperature, -1),
                   log_target=True, reduction="batchmean")
    return kl * temperature ** 2 if preset == "released" else kl


def ld_loss(student, teacher, mask, preset):
    """released: sum over states 0..m of the mean squared difference over all B*S*D elements, pads included.
    paper: mean over layers 1..m of the mean over the batch's valid positions and features."""
    pairs = list(zip(student, teacher))
    if preset == "released":
        return sum(fn.mse_loss(s, t) for s, t in pairs)
    valid = mask.bool()
    return sum(fn.mse_loss(s[valid], t[valid]) for s, t in pairs[1:]) / (len(pairs) - 1)


def schedule_factor(kind, step, total, warmup, floor=0.005):
    """The learning rate's factor at `step` (0-based): warm-up (t+1)/W while t < W, then the schedule over N - W."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / (total - warmup)
    cosine = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": cosine, "exponential": floor ** done}[kind]


class Optimiser:
    """AdamW over all parameters; E and F have a learning rate of their own. Decay applies to every parameter."""

    def __init__(self, model, o, learning_rate, new_learning_rate):
        new = [p for n, p in model.named_parameters() if n.endswith((".self.E", ".self.F"))]
        old = [p for n, p in model.named_parameters() if not n.endswith((".self.E", ".self.F"))]
        self.rates = [learning_rate, new_learning_rate]
        self.adam = torch.optim.AdamW([dict(params=old), dict(params=new)], lr=learning_rate, betas=(0.9, 0.999),
                                      eps=1e-8, weight_decay=o.weight_decay)
        self.parameters, self.o = old + new, o

    def step(self, step):
        """Clips by the global norm, steps at the rate of the student's step `step`, and drops the gradients."""
        if self.o.clip > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.o.clip)
        factor = schedule_factor(self.o.schedule, step, self.o.steps, self.o.warmup, self.o.schedule_floor)
        for group, rate in zip(self.adam.param_groups, self.rates):
            group["lr"] = rate * factor
        self.adam.step()
        self.adam.zero_grad()
        return self.rates[0] * factor


def teacher_of(mode, step, steps, teachers):
    """waypoint: phase i of n has the teacher at the end of phase i; a phase is steps/n long, the last takes the rest."""
    phase = step // max(1, steps // len(teachers)) if mode == "waypoint" else 0
    return teachers[min(len(teachers) - 1, phase)]


def teacher_forward(o, step, teacher, optimiser, batch):
    """The teacher's outputs before its own step. In trajectory the same forward gives its task loss, and every
    T_u-th batch's gradient moves it."""
    if o.mode != "trajectory":
        with torch.no_grad():
            return forward(teacher.eval(), batch), None
    out = forward(teacher.train(), batch)
    ce = ce_loss(out, batch)
    if (step + 1) % o.teacher_interval == 0:
        ce.backward()
        optimiser.step(step)
    return out, ce.item()


def train(o, student, teachers, batches):
    """Runs o.steps steps; yields one record a step, whose losses are those before the step's update."""
    optimiser = Optimiser(student, o, o.learning_rate, o.new_learning_rate or o.learning_rate)
    rate = o.teacher_learning_rate or o.learning_rate
    teacher_optimiser = Optimiser(teachers[0], o, rate, rate) if o.mode == "trajectory" else None
    stop = o.steps if o.hybrid_stop is None else o.hybrid_stop
    for step in range(o.steps):
        batch = batches(step)
        record = dict(step=step + 1)
        guided = bool(teachers) and step < stop
        with torch.autocast("cpu", torch.bfloat16, enabled=o.bf16):
            if guided:
                teacher = teacher_of(o.mode, step, o.steps, teachers)
                target, teacher_ce = teacher_forward(o, step, teacher, teacher_optimiser, batch)
                if teacher_ce is not None:
                    record["teacher_ce"] = teacher_ce
            out = forward(student.train(), batch)
            ce = ce_loss(out, batch)
            loss, record["ce"] = o.a_ce * ce, ce.item()
            if guided and o.a_kd > 0:
                kd = kd_loss(out.logits, target.logits.detach(), o.temperature, o.preset)
                loss, record["kd"] = loss + o.a_kd * kd, kd.item()
            if guided and o.a_ld > 0:
                states = [h.detach() for h in target.hidden_states]
                ld = ld_loss(out.hidden_states, states, batch["attention_mask"], o.preset)
                loss, record["ld"] = loss + o.a_ld * ld, ld.item()
        loss.backward()
        record["learning_rate"] = optimiser.step(step)
        record["loss"] = loss.item()
        yield record


def read_rows(path, text, pair, label):
    with open(path, newline="") as f:
        rows = list(csv.DictReader(f, delimiter="\t" if path.endswith(".tsv") else ",",
                                   quoting=csv.QUOTE_NONE if path.endswith(".tsv") else csv.QUOTE_MINIMAL))
    return [(r[text], r[pair] if pair else None, int(r[label])) for r in rows]


def batch_source(o, tokenizer, rows, config):
    """batches(step): samples in the file's order, round and round, padded on the right to the batch's longest."""
    offset = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    longest = o.max_length or config.max_position_embeddings - offset
    samples = [(tokenizer(a, b, truncation=True, max_length=longest), y) for a, b, y in rows]
    order = list(range(len(samples)))

    def batches(step):
        nonlocal order
        first = step * o.batch_size
        if o.order == "shuffled" and first % len(samples) < o.batch_size:
            order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(o.seed + step)).tolist()
        chosen = [samples[order[(first + i) % len(samples)]] for i in range(o.batch_size)]
        width = max(len(s["input_ids"]) for s, _ in chosen)
        pad = lambda key, value: torch.tensor([s[key] + [value] * (width - len(s[key])) for s, _ in chosen])
        batch = dict(input_ids=pad("input_ids", config.pad_token_id), attention_mask=pad("attention_mask", 0),
                     labels=torch.tensor([y for _, y in chosen]))
        if config.type_vocab_size > 1 and "token_type_ids" in chosen[0][0]:
            batch["token_type_ids"] = pad("token_type_ids", 0)
        return batch

    return batches


def make_parser():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", help="model directory; the source of unguided, trajectory and waypoint")
    p.add_argument("--mode", default="finetune", choices=["finetune", "unguided", "target", "trajectory", "waypoint"])
    p.add_argument("--teacher", help="target: the fine-tuned transformer (default: MODEL)")
    p.add_argument("--waypoints", help="waypoint: the --output of finetune --keep-waypoints N")
    p.add_argument("--student", help="a converted student to start from (default: converted here)")
    p.add_argument("--mixer-k", type=int, default=32)
    p.add_argument("--mixer-share", default="none", choices=["none", "key-value", "layerwise"])
    p.add_argument("--preset", default="released", choices=["released", "paper"])
    p.add_argument("--a-ce", type=float, default=1.0)
    p.add_argument("--a-kd", type=float, default=0.0)
    p.add_argument("--a-ld", type=float, default=1.0)
    p.add_argument("--temperature", type=float, default=2.0)
    p.add_argument("--hybrid-stop", type=int, help="from this step (0-based) on, the task loss alone")
    p.add_argument("--teacher-interval", type=int, default=1, help="T_u: student steps for each teacher step")
    p.add_argument("--train")
    p.add_argument("--text-column", default="sentence")
    p.add_argument("--pair-column")
    p.add_argument("--label-column", default="label")
    p.add_argument("--max-length", type=int, default=0, help="tokens; 0: all positions of the model")
    p.add_argument("--batch-size", type=int, default=32)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--order", default="given", choices=["given", "shuffled"])
    p.add_argument("--learning-rate", type=float, default=5e-5)
    p.add_argument("--new-learning-rate", type=float, default=0.0, help="of E and F; 0: as --learning-rate")
    p.add_argument("--teacher-learning-rate", type=float, default=0.0, help="trajectory; 0: as --learning-rate")
    p.add_argument("--weight-decay", type=float, default=0.0)
    p.add_argument("--clip", type=float, default=0.0, help="global gradient norm; 0: none")
    p.add_argument("--schedule", default="linear", choices=["constant", "linear", "cosine", "exponential"])
    p.add_argument("--schedule-floor", type=float, default=0.005, help="where cosine and exponential end, as a factor")
    p.add_argument("--warmup", type=int, default=0, help="steps")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--dtype", default="f32", choices=["f32", "f64"])
    p.add_argument("--bf16", action="store_true", help="autocast")
    p.add_argument("--keep-waypoints", type=int, default=0, help="finetune: OUTPUT/waypoints/1..N along the run")
    p.add_argument("--output", help="where the model of the end is written")
    return p


def build(o, labels=None):
    """(student, teachers) at step 0."""
    dtype = torch.float64 if o.dtype == "f64" else torch.float32
    source = load_model(o.model, dtype, labels)
    kept = os.path.join(o.waypoints, "waypoints") if o.mode == "waypoint" else None
    folders = {"target": [o.teacher or o.model],
               "waypoint": [os.path.join(kept, i) for i in sorted(os.listdir(kept), key=int)] if kept else []}
    teachers = [load_model(t, dtype) for t in folders.get(o.mode, [])]
    if o.mode == "finetune":
        return source, []
    origin = teachers[0] if o.mode == "target" else source
    student = load_model(o.student, dtype) if o.student else convert(origin, o.mixer_k, o.mixer_share, o.seed)
    return student, [source] if o.mode == "trajectory" else teachers


def run(o, each=lambda record: None):
    """The whole program; returns the trained student and the trajectory's teacher."""
    torch.set_num_threads(o.threads)
    torch.manual_seed(o.seed)
    rows = read_rows(o.train, o.text_column, o.pair_column, o.label_column) if o.train else []
    student, teachers = build(o, max((y for *_, y in rows), default=1) + 1)
    batches = batch_source(o, tf.AutoTokenizer.from_pretrained(o.model), rows, student.config) if o.steps else None
    keep = {(i + 1) * o.steps // o.keep_waypoints: i + 1 for i in range(o.keep_waypoints)}
    for record in train(o, student, teachers, batches):
        each(record)
        if record["step"] in keep:
            save_model(student, os.path.join(o.output, "waypoints", str(keep[record["step"]])), o.model)
    if o.output:
        save_model(student, o.output, o.model)
    return student, teachers


if __name__ == "__main__":
    run(make_parser().parse_args(), lambda record: print(json.dumps(record), flush=True))
