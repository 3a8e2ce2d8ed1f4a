// The training run of `finetune` and `convert`, in every CALD mode.
#pragma once
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>

#include "engine/open_device.h"
#include "train/cost.h"
#include "train/drift_record.h"
#include "train/evaluate.h"
#include "train/memory_choice.h"
#include "train/model_io.h"
#include "train/progress.h"
#include "train/run_directory.h"
#include "train/train_step.h"

namespace cald {

/// How a run ended.
struct Outcome {
  bool interrupted = false;   ///< `stop` was set; a checkpoint holds the run
  std::int64_t steps = 0;     ///< optimizer steps done
  double best_accuracy = -1;  ///< on --dev, 0..1; -1 without
  std::int64_t best_step = 0;
};

class Trainer {
 public:
  /// Loads and checks everything; nothing is written yet. `options` are resolved: presets chosen, threads known.
  /// Persistent tensors come from `heap`, on the device of exec_of(options). `train`, if it holds examples, takes the
  /// place of the file that the options name. Errors: options, files and shapes that do not fit.
  Trainer(const RunOptions& options, HeapAllocator& heap, Progress& progress, EncodedTask train = {});

  /// Chooses where a frozen teacher lies, recompute and micro-batches, beginning with what the options have, so that
  /// the run's tensors fit into `budget` bytes; the run's recipe will hold the choice. False, and nothing changed, if
  /// none does. Before plan().
  bool fit(std::size_t budget);
  /// Takes the memory that this choice leaves within `budget`: for a frozen teacher that is not to stay in its files,
  /// and for copies of weights if all of them have room. fit() ends with it, and a resumed run, whose choice is known,
  /// begins with it. Before plan().
  void take_room(std::size_t budget);
  /// Other choices with their memory and time. Before plan().
  std::vector<MemoryChoice> trade();
  /// The smallest of them, and what settings that are nobody's choice but the user's would make of it. Before plan().
  struct LeastMemory {
    std::size_t everything;  ///< bytes where the options' own choice stays
    MemoryChoice choice;
    std::string further;            ///< flags; empty if none would help
    std::size_t further_bytes = 0;  ///< with the choice and these flags
  };
  LeastMemory least_memory();
  /// Plans the memory of every kind of step and of the evaluation, largest batch first.
  void plan();
  /// Trains to the end, or until `stop` is set, which ends the run after the step at hand with a checkpoint.
  Outcome run(const std::atomic<bool>& stop);

  /// Step `step` (from 0) alone: nothing is written or recorded.
  StepLosses step(std::int64_t step) { return step_->run(step, batches_of(step)); }

  /// Bytes that the run would need in all with steps of `batch` examples of the longest length.
  std::size_t bytes_for(std::int64_t batch);
  /// Adds plan.json and cost.json to the run directory.
  void write_cost(const MemoryCost& cost);
  /// Wall time of the run in seconds, the parts before an interruption included.
  double seconds() const;

  const PlannedMemory& memory() const { return memory_; }
  /// The cost before the first step, as planned.
  MemoryCost cost() const;
  const TransferReport& transfer() const { return transfer_; }
  const Encoder& student() const { return *student_; }
  const EncodedTask& data() const { return train_; }
  /// Of the training batches; see BatchOrder.
  double pad_share() const { return order_ ? order_->pad_share() : 0; }
  const RunOptions& options() const { return options_; }
  std::int64_t total_steps() const { return schedule_.steps; }
  void observe(LaunchObserver* observer) { memory_.observe(observer); }
  /// See TrainStep.
  void profile(const StepRange& steps) {
    if (step_) step_->profile(steps);
  }

 private:
  /// Errors of MODEL where the student starts from another directory, and of settings that the student's own rule out;
  /// `start` is the configuration that it starts from.
  void check_models(const EncoderConfig& start) const;
  void load_student();
  MemoryBounds bounds() const;
  /// Whether the options say so, or nothing else may be chosen: false, then true, as far as each is possible.
  std::vector<bool> teacher_choices() const;
  /// Copies of weights for products in bf16, those of a teacher that learns too: what they take, and taking it.
  std::size_t copy_bytes() const;
  void keep_copies();
  std::size_t bytes_with(std::int64_t recompute, std::int64_t micro_batches, std::int64_t batch, bool map_teacher);
  void make_schedule();
  DataMarks data_marks() const;
  /// Writes the student's directory; one that was trained says how long its inputs were.
  void save_student(const std::string& directory) const;
  std::int64_t every(const std::optional<StepOrShare>& s) const;
  std::int64_t steps_per_epoch() const;
  std::vector<TokenBatch> batches_of(std::int64_t step) const;
  void record(std::int64_t step, const StepLosses& l, double seconds, const std::vector<TokenBatch>& batches);
  void evaluate_at(std::int64_t steps_done);
  void keep_waypoint(std::int64_t steps_done);
  void write_checkpoint();
  void restore();

  RunOptions options_;
  HeapAllocator& heap_;
  Progress& progress_;
  ModelDir source_;                       ///< whose weights the student starts from
  std::unique_ptr<Tokenizer> tokenizer_;  ///< null where the examples were given
  EncodedTask train_;
  std::optional<EncodedTask> dev_;
  std::unique_ptr<BatchOrder> order_;
  LearningRateSchedule schedule_;
  std::unique_ptr<Encoder> student_;
  TransferReport transfer_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Guide> guide_;
  OpenDevice device_;
  PlannedMemory memory_;
  std::unique_ptr<TrainStep> step_;
  std::unique_ptr<DriftRecord> drift_;
  std::unique_ptr<RunDirectory> directory_;
  RunState state_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  double step_seconds_ = 0;  // of this process
  std::int64_t steps_run_ = 0, tokens_run_ = 0;
};

/// Where and how the run computes; the device is not open yet.
Exec exec_of(const RunOptions& options);
/// The directory whose weights the student starts from.
std::string start_directory(const RunOptions& options);
/// The options of the student's mixer, from the keys mixer-*.
nlohmann::json mixer_options(const RunOptions& options);

}  // namespace cald
