#include "train/guide.h"

#include <algorithm>

#include "data/safetensors.h"
#include "ops/losses.h"
#include "train/mapped_weights.h"
#include "train/model_io.h"
#include "train/run_directory.h"

namespace cald {
namespace {

constexpr std::uint32_t kTeacherStream = 1;

DropoutPlan teacher_dropout(const RunOptions& o, std::int64_t step, bool by_default) {
  const bool on = o.teacher_dropout ? *o.teacher_dropout > 0 : by_default;
  const float rate = o.teacher_dropout ? static_cast<float>(*o.teacher_dropout) : -1.0f;
  return {on, rate, o.seed, static_cast<std::uint32_t>(step), kTeacherStream};
}

/// How the teacher computes.
Exec teacher_exec(const RunOptions& o, Exec exec) {
  exec.compute = dtype_of(o.teacher_dtype.value_or(o.dtype));
  return exec;
}

Guidance take(EncoderOutput&& out, const GuideStep& at) {
  Guidance g;
  if (at.states)
    for (const Tensor& h : out.states) g.states.push_back(h.detach());
  if (at.logits) g.logits = out.logits.detach();
  return g;
}

/// Error, at the teacher's `path`, unless the student is the teacher but for its mixers.
void require_same_form(const EncoderConfig& teacher, const EncoderConfig& student, const std::string& path) {
  if (const auto differ = architecture_difference(teacher, student))
    throw data_error(path, "the teacher's " + differ->key + " is " + differ->a + ", the student's " + differ->b);
  if (teacher.labels.size() != student.labels.size())
    throw data_error(path, "the teacher has " + std::to_string(teacher.labels.size()) + " classes, the student " +
                               std::to_string(student.labels.size()));
  // Names that differ may mean the same; the same ones in another order do not.
  if (teacher.labels != student.labels &&
      std::is_permutation(teacher.labels.begin(), teacher.labels.end(), student.labels.begin(), student.labels.end()))
    throw data_error(path, "the teacher numbers its classes in another order than the student");
}

/// Error, at the teacher's `path`, unless it has positions for the run's texts.
void require_room(const EncoderConfig& teacher, const RunOptions& o, const std::string& path) {
  if (*o.max_length > teacher.max_tokens())
    throw data_error(path, "the teacher has positions for " + std::to_string(teacher.max_tokens()) +
                               " tokens, but max-length is " + std::to_string(*o.max_length) +
                               " (finetune --max-positions extends them)");
}

/// Target mode: the fine-tuned transformer, frozen.
class TargetGuide : public Guide {
 public:
  TargetGuide(const RunOptions& o, const std::string& from, const EncoderConfig& student, Allocator& memory,
              const Exec& exec)
      : options_(o), memory_(memory), exec_(teacher_exec(o, exec)), path_(from) {
    const ModelDir directory(from);
    teacher_ = std::make_unique<Encoder>(read_encoder_config(directory));
    plan_transfer(*teacher_, directory, {});  // every complaint comes before any memory is taken
    require_transformer(teacher_->config(), directory);
    require_same_form(teacher_->config(), student, from);
    require_room(teacher_->config(), o, from);
    size_if_mapped_ = size_if_mapped(teacher_->config(), from);
    if (o.device == DeviceOption::cpu && (o.map_teacher || !o.memory_budget.empty()))
      map_weights();
    else
      copy_weights();
  }

  TeacherWeights weights() const override {
    TeacherWeights w{options_.device == DeviceOption::cpu, mapped_ != nullptr};
    if (!w.can_be_mapped) return {};
    w.if_copied = teacher_->parameters().frozen_bytes(exec_);
    w.if_mapped = size_if_mapped_;
    w.taken = mapped_ ? mapped_->copied() : w.if_copied;
    return w;
  }

  void copy_weights() override {
    teacher_->parameters().allocate_frozen(memory_, MemClass::teacher, exec_);
    mapped_.reset();
    load_parameters(*teacher_, ModelDir(path_), {});
  }

  Guidance guide(Context& c, const LabelledInput& in, const GuideStep& at, std::optional<Tensor>&) override {
    const Context::Scope scope(c, "teacher");
    const Context::Compute compute(c, exec_.compute);
    Tape tape(c, false);  // eq:target_teacher
    return take(teacher_->forward(tape, in.encoder, teacher_dropout(options_, at.step, false), at.states), at);
  }

 protected:
  /// Another model of the same form teaches from now on.
  void change(const std::string& to) {
    path_ = to;
    if (mapped_)
      map_weights();
    else
      load_parameters(*teacher_, ModelDir(path_), {});
  }

  const RunOptions options_;

 private:
  void map_weights() {
    mapped_.reset();  // it looks after the parameters that the next one takes over
    mapped_ = std::make_unique<MappedWeights>(*teacher_, ModelDir(path_), memory_, MemClass::teacher);
  }
  /// What mapped weights would take.
  static std::size_t size_if_mapped(const EncoderConfig& config, const std::string& path) {
    RecordingAllocator nowhere;  // outlives the parameters
    Encoder like_it(config);
    const MappedWeights mapped(like_it, ModelDir(path), nowhere, MemClass::teacher);
    return mapped.copied() + mapped.largest_part();
  }

  Allocator& memory_;
  const Exec exec_;
  std::string path_;
  std::size_t size_if_mapped_ = 0;
  std::unique_ptr<Encoder> teacher_;
  std::unique_ptr<MappedWeights> mapped_;  // null: the weights are in memory
};

/// Waypoint mode: in phase i the teacher is the i-th checkpoint of a fine-tuning run.
class WaypointGuide : public TargetGuide {
 public:
  WaypointGuide(const RunOptions& o, std::vector<std::string> waypoints, std::int64_t total,
                const EncoderConfig& student, Allocator& memory, const Exec& exec)
      : TargetGuide(o, waypoints.front(), student, memory, exec), waypoints_(std::move(waypoints)), total_(total) {}

  void begin_step(std::int64_t step) override {
    const std::int64_t due = waypoint_at(step, total_, static_cast<std::int64_t>(waypoints_.size()));
    if (due == loaded_) return;
    change(waypoints_[static_cast<std::size_t>(due)]);
    loaded_ = due;
  }

 private:
  std::vector<std::string> waypoints_;
  std::int64_t total_, loaded_ = 0;
};

/// Trajectory mode: the teacher is fine-tuned at the same time. One forward gives both its own loss and the states that
/// the student is to match, which are therefore those before the teacher's step.
class TrajectoryGuide : public Guide {
 public:
  TrajectoryGuide(const RunOptions& o, const ModelDir& source, const LearningRateSchedule& schedule,
                  const EncoderConfig& student, Allocator& memory, const Exec& exec)
      : options_(o), memory_(memory), exec_(teacher_exec(o, exec)), schedule_(schedule) {
    EncoderConfig config = read_encoder_config(source);
    require_transformer(config, source);
    TransferPolicy policy;
    policy.create_head = config.labels.empty();
    policy.replace_head = o.new_head && !config.labels.empty();
    policy.seed = o.seed;
    if (policy.create_head || policy.replace_head) config.labels = student.labels;
    require_same_form(config, student, source.path());
    config.max_positions = std::max(config.max_positions, student.max_positions);  // extended as the student's are
    teacher_ = std::make_unique<Encoder>(config);
    teacher_->parameters().allocate(memory, MemClass::teacher);
    // All are kept until its update, which waits until the student's loss is known to be finite.
    teacher_->parameters().set_gradients(memory, Gradients::kept);
    load_parameters(*teacher_, source, policy);
    const double rate = o.teacher_learning_rate.value_or(o.learning_rate);
    optimizer_ = std::make_unique<Optimizer>(teacher_->parameters(), memory, o, rate, rate);
  }

  void clear_gradients() override { teacher_->parameters().clear_gradients(); }

  Guidance guide(Context& c, const LabelledInput& in, const GuideStep& at, std::optional<Tensor>& ce) override {
    const Context::Scope scope(c, "teacher");
    const Context::Compute compute(c, exec_.compute);
    Tape tape(c, learns(at.step));
    EncoderOutput out =
        teacher_->forward(tape, in.encoder, teacher_dropout(options_, at.step, true), at.states, at.recompute);
    ce = tape.apply(CrossEntropy{in.labels}, out.logits);
    const Tensor scaled = tape.apply(WeightedSum{static_cast<float>(at.share), 0.0f}, *ce, Tensor{});
    Guidance g = take(std::move(out), at);  // eq:trajectory_states
    out = {};
    if (learns(at.step)) tape.backward(scaled);
    ce = ce->detach();
    return g;
  }

  std::size_t copy_bytes() const override { return teacher_->parameters().copy_bytes(exec_); }
  void keep_copies() override { teacher_->parameters().keep_copies(memory_, MemClass::teacher, exec_); }

  std::string phase(std::int64_t step) const override { return learns(step) ? "learning" : "watching"; }

  std::size_t moment_bytes() const override { return optimizer_->moment_bytes(); }

  void update(Context& c, std::int64_t step) override {
    if (learns(step)) optimizer_->update(c, schedule_.factor(step));
  }

  void save(const std::string& directory) const override {
    write_weights(teacher_->parameters(), directory + "/teacher.safetensors");
    optimizer_->save(directory + "/teacher_optimizer.safetensors");
  }
  void load(const std::string& directory) override {
    read_weights(teacher_->parameters(), directory + "/teacher.safetensors");
    optimizer_->load(directory + "/teacher_optimizer.safetensors");
  }

 private:
  /// Only the T_u-th step's gradient moves the teacher.
  bool learns(std::int64_t step) const { return (step + 1) % options_.teacher_interval == 0; }  // eq:teacher_interval

  const RunOptions options_;
  Allocator& memory_;
  const Exec exec_;
  LearningRateSchedule schedule_;
  std::unique_ptr<Encoder> teacher_;
  std::unique_ptr<Optimizer> optimizer_;
};

}  // namespace

std::int64_t waypoint_at(std::int64_t step, std::int64_t total, std::int64_t count) {
  const std::int64_t length = std::max<std::int64_t>(1, total / count);
  return std::min(step / length, count - 1);  // eq:waypoint_phase
}

std::unique_ptr<Guide> make_guide(const RunOptions& o, const ModelDir& source, const LearningRateSchedule& schedule,
                                  const EncoderConfig& student, Allocator& memory, const Exec& exec) {
  switch (o.mode) {
    case Mode::finetune:
    case Mode::unguided:
      return nullptr;
    case Mode::target:
      return std::make_unique<TargetGuide>(o, o.teacher, student, memory, exec);
    case Mode::trajectory:
      return std::make_unique<TrajectoryGuide>(o, source, schedule, student, memory, exec);
    case Mode::waypoint:
      return std::make_unique<WaypointGuide>(o, list_waypoints(o.waypoints), schedule.steps, student, memory, exec);
  }
  return nullptr;
}

}  // namespace cald
