// Every setting of a run, in one struct with one visitor: the command line, --help, recipe.json and the checkpoint's
// header are all made from it.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "engine/base/dtype.h"

namespace cald {

/// A point of a run, as a user writes it: "300" (steps) or "60%" (a share of the whole).
struct StepOrShare {
  double value = 0;
  bool is_share = false;  ///< value is then in 0..1
  /// The step it means in a run, or an epoch, of `total` steps.
  std::int64_t of(std::int64_t total) const {
    return static_cast<std::int64_t>(is_share ? value * static_cast<double>(total) + 0.5 : value);
  }
};

/// The point at which hybrid mode stops distilling.
struct StopPoint : StepOrShare {
  StopPoint() = default;
  StopPoint(const StepOrShare& point) : StepOrShare(point) {}
  bool automatic = false;  ///< "auto": where the drift of a fine-tuning run says; see settle_hybrid_stop
};

/// Most examples of a batch, slots of a mixer, and the like: far beyond any use, and their products stay countable.
constexpr std::int64_t kMostRows = std::int64_t{1} << 20;

/// An amount of memory as it was written: "2GiB", "1000000000".
struct MemorySize : std::string {
  using std::string::string;
  MemorySize(const std::string& text) : std::string(text) {}
};

enum class Mode { finetune, unguided, target, trajectory, waypoint };
enum class Preset { released, paper };
enum class Schedule { constant, linear, cosine, exponential };
enum class Order { given, shuffled };
enum class Share { none, key_value, layerwise };  ///< Linformer's E and F
enum class ProjectionInit { normal, pooling, identity };
enum class Start { model, teacher };
enum class Reduce { sum, mean };
enum class Spacing { steps, drift };  ///< of waypoints
enum class StopTerms { all, ld };     ///< what hybrid stops
enum class DTypeOption { f32, bf16 };
enum class DeviceOption { cpu, cuda };

constexpr DType dtype_of(DTypeOption o) { return o == DTypeOption::bf16 ? DType::bf16 : DType::f32; }

/// An optional value is one whose default depends on others (preset, model, data); the resolved recipe states it.
struct RunOptions {
  // what
  std::string model;
  Mode mode = Mode::finetune;
  std::string teacher, waypoints, student, output;
  // data
  std::string train, dev;
  std::string text_column, pair_column, label_column;
  std::optional<std::int64_t> max_length;
  Order order = Order::shuffled;
  bool bucket = true;
  // conversion
  std::string mixer = "linformer";
  std::optional<std::int64_t> mixer_k;  // default: that of the student given, else 256
  std::optional<Share> mixer_share;     // default: that of the student given, else none
  ProjectionInit mixer_init = ProjectionInit::normal;
  double mixer_std = 1.0;
  std::string layers = "all";
  bool new_head = false;
  std::optional<Start> start;
  std::optional<std::int64_t> max_positions;
  // loss
  Preset preset = Preset::released;
  double a_ce = 1.0, a_kd = 0.0, a_ld = 1.0;
  double temperature = 2.0;
  std::optional<bool> kd_squared;     // times T^2
  std::optional<bool> ld_embeddings;  // state 0 counts
  std::optional<Reduce> ld_reduce;    // over the states
  std::optional<bool> ld_pads;        // padded positions count
  bool ld_normalise = false;
  std::optional<StopPoint> hybrid_stop;
  StopTerms hybrid_stop_terms = StopTerms::all;
  std::string drift_from;
  // optimizer
  std::optional<std::int64_t> steps;
  double epochs = 3.0;
  std::int64_t batch_size = 32, accumulate = 1;
  double learning_rate = 5e-5;
  std::optional<double> new_learning_rate;
  double weight_decay = 0.0, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  Schedule schedule = Schedule::linear;
  StepOrShare warmup{0.06, true};
  double schedule_floor = 0.005;
  double clip = 0.0;
  std::optional<double> teacher_learning_rate;
  std::int64_t teacher_interval = 1;
  // regularisation
  std::optional<double> dropout;          // of the student; default: config.json's
  std::optional<double> teacher_dropout;  // default: config.json's in trajectory, 0 for frozen teachers
  // evaluation and checkpoints
  std::optional<StepOrShare> evaluate_every;  // a share is of an epoch
  std::int64_t eval_batch_size = 64;
  std::optional<StepOrShare> checkpoint_every;  // a share is of an epoch
  bool keep_best = true;
  std::int64_t keep_waypoints = 0;
  Spacing waypoint_spacing = Spacing::steps;
  bool drift = false;
  std::int64_t drift_inputs = 256;
  // machine
  std::uint64_t seed = 0;
  std::int64_t threads = 0;  // 0: as many as the machine has
  DTypeOption dtype = DTypeOption::f32;
  std::optional<DTypeOption> teacher_dtype;  // default: dtype
  DTypeOption moments = DTypeOption::f32;    // the optimizer's
  DeviceOption device = DeviceOption::cpu;
  bool tf32 = false;               // device cuda
  MemorySize memory_budget;        // empty: none
  bool map_teacher = false;        // frozen teachers on the CPU
  std::int64_t recompute = 0;      // layers
  std::int64_t micro_batches = 1;  // of a batch
  bool resume = false;

  /// Calls v(key, field, help) for every setting, in the order of --help. Keys are kebab case; `help` gives the unit.
  template <class Self, class Visitor>
  static void visit(Self& o, Visitor&& v) {
    v("model", o.model, "directory of the transformer to start from (Hugging Face layout)");
    v("mode", o.mode, "finetune, or how to convert: unguided, target, trajectory, waypoint");
    v("teacher", o.teacher, "target mode: directory of the fine-tuned transformer");
    v("waypoints", o.waypoints, "waypoint mode: run directory of finetune --keep-waypoints");
    v("student", o.student, "start from this converted model instead of converting MODEL");
    v("output", o.output, "run directory to write");
    v("train", o.train, "training data: .tsv, .csv or .jsonl with named columns");
    v("dev", o.dev, "data to evaluate on while training; the best checkpoint is chosen by it");
    v("text-column", o.text_column, "column of the text (default: the first of the usual names that the file has)");
    v("pair-column", o.pair_column,
      "column of the second text, for pairs (default: the partner of the text's usual name)");
    v("label-column", o.label_column, "column of the label (default: label)");
    v("max-length", o.max_length,
      "longest input in tokens, specials included; longer texts are cut (default: 128, or the model's positions where "
      "they are fewer)");
    v("order", o.order, "order of the training examples: given (as in the file) or shuffled (by --seed)");
    v("bucket", o.bucket, "batch examples of similar length together (shuffled order only)");
    v("mixer", o.mixer, "what replaces attention in the student: linformer");
    v("mixer-k", o.mixer_k, "linformer: slots that the sequence is projected to (default: 256, or STUDENT's)");
    v("mixer-share", o.mixer_share,
      "linformer: what shares E and F: none, key-value, layerwise (default: none, or STUDENT's)");
    v("mixer-init", o.mixer_init,
      "linformer: start of E and F: normal, or pooling or identity, which imitate attention");
    v("mixer-std", o.mixer_std, "linformer: standard deviation of the normal start");
    v("layers", o.layers, "layers whose attention is replaced: all, or a list such as 0,2,4-5");
    v("start", o.start, "whose weights the student starts from: model or teacher (target mode: teacher, else model)");
    v("new-head", o.new_head, "replace MODEL's classification head by a new one for the data's labels");
    v("max-positions", o.max_positions, "extend position embeddings, and a Linformer's E and F, to this many tokens");
    v("preset", o.preset,
      "the method as the released code or the paper has it; sets kd-squared, ld-embeddings, ld-reduce and ld-pads "
      "where not given");
    v("a-ce", o.a_ce, "weight of the task loss");
    v("a-kd", o.a_kd, "weight of the output distillation (KL divergence)");
    v("a-ld", o.a_ld, "weight of the layerwise distillation");
    v("temperature", o.temperature, "temperature of the output distillation");
    v("kd-squared", o.kd_squared, "multiply the output distillation by temperature^2 (released: true, paper: false)");
    v("ld-embeddings", o.ld_embeddings,
      "layerwise: the embeddings' output counts as a state (released: true, paper: false)");
    v("ld-reduce", o.ld_reduce, "layerwise: sum or mean over states (released: sum, paper: mean)");
    v("ld-pads", o.ld_pads, "layerwise: padded positions count (released: true, paper: false)");
    v("ld-normalise", o.ld_normalise, "layerwise: LayerNorm on both sides first");
    v("hybrid-stop", o.hybrid_stop,
      "stop distillation at this step, or share of the steps (60%), or where drift-from says (auto)");
    v("hybrid-stop-terms", o.hybrid_stop_terms, "what stops there: all terms of the teacher, or ld alone");
    v("drift-from", o.drift_from,
      "hybrid-stop auto: run directory of finetune --drift (default: the run of the waypoints or the teacher)");
    v("steps", o.steps, "optimizer steps (instead of --epochs); 0 writes the model as it starts, untrained");
    v("epochs", o.epochs, "passes over the training data");
    v("batch-size", o.batch_size, "examples of a batch");
    v("accumulate", o.accumulate, "batches whose gradients are averaged into one optimizer step");
    v("learning-rate", o.learning_rate, "peak learning rate");
    v("new-learning-rate", o.new_learning_rate,
      "peak learning rate of the parameters that conversion creates (default: learning-rate)");
    v("weight-decay", o.weight_decay, "AdamW's decoupled weight decay");
    v("beta1", o.beta1, "AdamW's decay of the first moment");
    v("beta2", o.beta2, "AdamW's decay of the second moment");
    v("epsilon", o.epsilon, "AdamW's epsilon");
    v("schedule", o.schedule, "of the learning rate after warm-up: constant, linear, cosine, exponential");
    v("warmup", o.warmup, "linear warm-up, in steps or as a share of them (6%)");
    v("schedule-floor", o.schedule_floor, "where the cosine and exponential schedules end, as a share of the peak");
    v("clip", o.clip, "largest norm of the gradient; 0: no clipping");
    v("teacher-learning-rate", o.teacher_learning_rate,
      "trajectory: the teacher's peak learning rate (default: learning-rate)");
    v("teacher-interval", o.teacher_interval, "trajectory: student steps per step of the teacher");
    v("dropout", o.dropout, "dropout of the model that is trained, 0 to below 1 (default: config.json's)");
    v("teacher-dropout", o.teacher_dropout,
      "dropout of the teacher (default: config.json's in trajectory mode, else 0)");
    v("evaluate-every", o.evaluate_every,
      "evaluate on --dev every so many steps, or share of an epoch (default: 100%)");
    v("eval-batch-size", o.eval_batch_size, "examples of an evaluation batch");
    v("checkpoint-every", o.checkpoint_every,
      "write a checkpoint every so many steps, or share of an epoch (default: 100%)");
    v("keep-best", o.keep_best, "RUN/model is the best model on --dev, not the last");
    v("keep-waypoints", o.keep_waypoints, "finetune: keep this many models for waypoint mode");
    v("waypoint-spacing", o.waypoint_spacing,
      "finetune: waypoints lie evenly in steps or in drift (needs --drift; twice as many lie on disk until the end)");
    v("drift", o.drift, "finetune: measure how far hidden states move from step 0, on inputs of --dev");
    v("drift-inputs", o.drift_inputs, "examples that the drift is measured on, evenly spaced over --dev");
    v("seed", o.seed, "seed of shuffling, dropout and new parameters");
    v("threads", o.threads, "threads; 0: all of the machine's");
    v("dtype", o.dtype, "inputs of matrix products: f32 or bf16");
    v("teacher-dtype", o.teacher_dtype,
      "those of the teacher's products; in bf16 a frozen teacher's matrices take half the memory (default: dtype)");
    v("device", o.device, "cpu or cuda");
    v("tf32", o.tf32, "device cuda: products in f32 may use tensor cores, their inputs rounded to TF32 (10 bits)");
    v("memory-budget", o.memory_budget,
      "most memory for tensors, in bytes or with KiB, MiB, GiB: sets map-teacher, recompute and micro-batches, as "
      "little as will do");
    v("map-teacher", o.map_teacher,
      "read a frozen teacher's weights from its files, layer by layer in each step, instead of holding them in memory");
    v("moments", o.moments,
      "the optimizer's moments: f32, or bf16, stochastically rounded, in half the memory and no longer the same "
      "updates");
    v("recompute", o.recompute,
      "layers whose activations the backward computes again instead of keeping them (from the first on)");
    v("micro-batches", o.micro_batches,
      "parts into which a batch is cut to save memory; the update is that of the whole batch up to rounding");
    v("resume", o.resume, "go on from the run directory's last checkpoint");
  }
};

}  // namespace cald
