#include "train/trainer.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "train/option_io.h"
#include "train/option_names.h"

namespace cald {
namespace {

TextRules text_rules(const RunOptions& o, const Tokenizer* tokenizer, const EncoderConfig& config) {
  const std::int64_t room = o.max_positions ? *o.max_positions : config.max_tokens();
  if (o.max_length && *o.max_length > room)
    throw usage_error("--max-length " + std::to_string(*o.max_length) + " is more than the model's " +
                      std::to_string(room) + " positions (--max-positions extends them)");
  return {tokenizer, o.max_length.value_or(std::min<std::int64_t>(128, room))};
}

/// A student that is given was converted with a mixer of its own.
void require_mixer_as_given(const RunOptions& o, const EncoderConfig& student) {
  const auto differ = [&](const char* key, const std::string& given, const char* option, const std::string& own) {
    if (given != own)
      throw usage_error("--" + std::string(key) + " is " + given + ", but the student " + o.student + " has " + option +
                        " = " + own);
  };
  for (const EncoderConfig::LayerMixer& m : student.mixers) {
    if (m.name != "linformer") continue;
    if (o.mixer_k) differ("mixer-k", std::to_string(*o.mixer_k), "k", m.options.at("k").dump());
    if (o.mixer_share)
      differ("mixer-share", enum_name(*o.mixer_share), "share", m.options.at("share").get<std::string>());
  }
}

}  // namespace

std::string start_directory(const RunOptions& o) {
  if (!o.student.empty()) return o.student;
  const bool has_teacher = o.mode == Mode::target && !o.teacher.empty();              // without steps it needs none
  const Start start = o.start.value_or(has_teacher ? Start::teacher : Start::model);  // eq:student_start
  return start == Start::teacher ? o.teacher : o.model;
}

nlohmann::json mixer_options(const RunOptions& o) {
  if (o.mixer != "linformer") return nlohmann::json::object();  // the keys mixer-* are Linformer's
  return {
      {"k", *o.mixer_k}, {"share", enum_name(*o.mixer_share)}, {"init", enum_name(o.mixer_init)}, {"std", o.mixer_std}};
}

Exec exec_of(const RunOptions& o) {
  return exec_on(o.device == DeviceOption::cuda ? Device::cuda : Device::cpu, o.threads, dtype_of(o.dtype), o.tf32);
}

Trainer::Trainer(const RunOptions& options, HeapAllocator& heap, Progress& progress, EncodedTask train)
    : options_(options),
      heap_(heap),
      progress_(progress),
      source_(start_directory(options)),
      tokenizer_(train.size() > 0 ? nullptr : load_tokenizer_of(source_)),
      train_(std::move(train)),
      device_(exec_of(options)),
      memory_(device_.exec(), heap) {
  resolve_mixer(options_);
  const EncoderConfig config = read_encoder_config(source_);
  check_models(config);
  const TextRules rules = text_rules(options_, tokenizer_.get(), config);
  options_.max_length = rules.max_length;
  const LabelMap head = LabelMap::from_names(config.labels);
  const bool keeps_head = !config.labels.empty() && !options_.new_head;
  if (train_.size() == 0 && !options_.train.empty())
    train_ = load_task(options_.train, options_, rules, keeps_head ? &head : nullptr);
  if (!options_.dev.empty()) dev_ = load_task(options_.dev, options_, rules, &train_.label_map);
  if (train_.size() > 0)
    order_ = std::make_unique<BatchOrder>(
        train_.lengths(), options_.batch_size,
        BatchOrder::Options{options_.order == Order::shuffled, options_.bucket, options_.seed});
  make_schedule();
  load_student();
  const double new_rate = options_.new_learning_rate.value_or(options_.learning_rate);
  if (schedule_.steps == 0) return;
  optimizer_ = std::make_unique<Optimizer>(student_->parameters(), heap_, options_, options_.learning_rate, new_rate);
  guide_ = make_guide(options_, ModelDir(options_.model), schedule_, student_->config(), heap_, memory_.exec());
  if (options_.memory_budget.empty()) keep_copies();
  step_ = std::make_unique<TrainStep>(options_, *student_, *optimizer_, guide_.get(), schedule_, memory_);
  if (options_.drift)
    drift_ = std::make_unique<DriftRecord>(options_, *student_, *dev_, schedule_.steps, source_.path(), memory_, heap_);
}

std::int64_t Trainer::steps_per_epoch() const {
  return (order_->batches_per_epoch() + options_.accumulate - 1) / options_.accumulate;
}

void Trainer::make_schedule() {
  const auto by_epochs = [&] {
    const auto batches = static_cast<double>(order_->batches_per_epoch());  // a step may go on into the next epoch
    return static_cast<std::int64_t>(std::ceil(options_.epochs * batches / static_cast<double>(options_.accumulate)));
  };
  schedule_.steps = options_.steps ? *options_.steps : by_epochs();
  schedule_.kind = options_.schedule;
  schedule_.warmup = options_.warmup.of(schedule_.steps);
  schedule_.floor = options_.schedule_floor;
  if (options_.keep_waypoints > schedule_.steps)
    throw usage_error("keep-waypoints is " + std::to_string(options_.keep_waypoints) + ", but the run has " +
                      std::to_string(schedule_.steps) + " steps");
  if (schedule_.steps == 0) return;
  const auto within = [&](const StepOrShare& point, const char* key) {
    if (point.of(schedule_.steps) > schedule_.steps)
      throw usage_error("--" + std::string(key) + " is step " + std::to_string(point.of(schedule_.steps)) +
                        ", but the run has " + std::to_string(schedule_.steps) + " steps");
  };
  within(options_.warmup, "warmup");
  if (options_.hybrid_stop) within(*options_.hybrid_stop, "hybrid-stop");
}

void Trainer::check_models(const EncoderConfig& start) const {
  if (options_.recompute > start.layers)
    throw usage_error("recompute is " + std::to_string(options_.recompute) + ", but the model has " +
                      std::to_string(start.layers) + " layers");
  if (options_.mode == Mode::finetune) return;
  if (!options_.student.empty()) require_mixer_as_given(options_, start);
  if (options_.mode != Mode::target || options_.teacher.empty()) return;
  const ModelDir model(options_.model), teacher(options_.teacher);
  const EncoderConfig config = read_encoder_config(model);
  if (options_.layers == "all") require_transformer(config, model);
  if (const auto differ = architecture_difference(config, read_encoder_config(teacher)))
    throw data_error(teacher.path(), "the teacher's " + differ->key + " is " + differ->b + ", but that of " +
                                         model.path() + " is " + differ->a + "; wanted MODEL fine-tuned");
}

void Trainer::load_student() {
  EncoderConfig config = read_encoder_config(source_);
  TransferPolicy policy;
  policy.seed = options_.seed;
  if (train_.size() > 0) {
    policy.typical_length = train_.mean_length();
    policy.longest = train_.longest();
  }
  policy.create_head = config.labels.empty();
  policy.replace_head = options_.new_head && !config.labels.empty();
  // The data's classes, where the model has none of its own; without data (--steps 0) it stays without a head.
  if (config.labels.empty() || options_.new_head) config.labels = train_.label_map.names();
  policy.create_head &= !config.labels.empty();
  if (options_.max_positions) {
    const std::int64_t before_first = config.max_positions - config.max_tokens();
    config.max_positions = *options_.max_positions + before_first;
  }
  if (options_.mode != Mode::finetune && options_.student.empty()) {
    if (options_.layers == "all") require_transformer(config, source_);
    replace_mixers(config, options_.layers, options_.mixer, mixer_options(options_));
    policy.create_mixers = policy.drop_attention = true;
  }
  student_ = std::make_unique<Encoder>(std::move(config));
  plan_transfer(*student_, source_, policy);  // every complaint comes before any memory is taken
  student_->parameters().allocate(heap_, MemClass::weights);
  transfer_ = load_parameters(*student_, source_, policy);
}

std::int64_t Trainer::every(const std::optional<StepOrShare>& s) const {
  const std::int64_t steps = s ? s->of(steps_per_epoch()) : steps_per_epoch();
  return std::max<std::int64_t>(1, steps);
}

std::vector<TokenBatch> Trainer::batches_of(std::int64_t step) const {
  std::vector<TokenBatch> batches;
  std::int32_t sample = 0;
  for (std::int64_t i = 0; i < options_.accumulate; ++i) {
    const std::int64_t n = step * options_.accumulate + i;
    TokenBatch b = gather(train_, order_->batch(n), student_->config().pad_id);
    for (std::int32_t& id : b.sample_ids) id = sample++;  // unique within the step: the micro-batches draw apart
    batches.push_back(std::move(b));
  }
  return batches;
}

Outcome Trainer::run(const std::atomic<bool>& stop) {
  using Clock = std::chrono::steady_clock;
  directory_ = std::make_unique<RunDirectory>(options_);
  directory_->write_json("conversion.json", transfer_.json());
  restore();
  if (drift_ && state_.step == 0) drift_->measure(0, *directory_);
  const auto at_step = [&](std::int64_t number, const auto& body) {
    try {
      body();
    } catch (const Error& e) {
      throw Error("step " + std::to_string(number) + ": " + e.what() +
                  (directory_->has_checkpoint() ? "; the last good checkpoint is in " + directory_->checkpoint() : ""));
    }
  };
  while (state_.step < schedule_.steps) {
    const std::int64_t step = state_.step;
    const auto start = Clock::now();
    const std::vector<TokenBatch> batches = batches_of(step);
    StepLosses losses;
    at_step(step + 1, [&] { losses = step_->run(step, batches); });
    ++state_.step;
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    record(step, losses, took, batches);
    progress_.step(state_.step, schedule_.steps, losses, static_cast<double>(tokens_run_) / step_seconds_);

    const bool last = state_.step == schedule_.steps;
    if (dev_ && (last || state_.step % every(options_.evaluate_every) == 0))
      at_step(state_.step, [&] { evaluate_at(state_.step); });
    if (drift_) drift_->measure(state_.step, *directory_);
    keep_waypoint(state_.step);
    const bool interrupted = stop.load();
    if (last || interrupted || state_.step % every(options_.checkpoint_every) == 0) write_checkpoint();
    if (interrupted && !last) return {true, state_.step, state_.best_accuracy, state_.best_step};
  }
  if (drift_) drift_->finish(*directory_);
  if (!(dev_ && options_.keep_best) || schedule_.steps == 0) save_student(directory_->model());
  return {false, state_.step, state_.best_accuracy, state_.best_step};
}

void Trainer::record(std::int64_t step, const StepLosses& l, double seconds, const std::vector<TokenBatch>& batches) {
  nlohmann::ordered_json line = {{"step", step + 1}, {"loss", l.total}};
  const auto add = [&](const char* key, const std::optional<double>& v) {
    if (v) line[key] = *v;
  };
  add("ce", l.ce);
  add("kd", l.kd);
  add("ld", l.ld);
  add("teacher_ce", l.teacher_ce);
  line["learning_rate"] = optimizer_->rate() * schedule_.factor(step);
  if (!l.ld_by_state.empty()) line["ld_by_state"] = l.ld_by_state;
  directory_->metric(line);
  std::int64_t tokens = 0, padded = 0;
  for (const TokenBatch& b : batches) {
    tokens += b.valid_tokens();
    padded += b.batch * b.seq;
  }
  step_seconds_ += seconds;
  tokens_run_ += tokens;
  ++steps_run_;
  directory_->timing({{"step", step + 1},
                      {"seconds", seconds},
                      {"tokens", tokens},
                      {"padded_tokens", padded},
                      {"elapsed", this->seconds()}});
}

void Trainer::evaluate_at(std::int64_t steps_done) {
  const Evaluation e = evaluate(*student_, *dev_, options_.eval_batch_size, memory_);
  directory_->metric(
      {{"step", steps_done}, {"eval", {{"accuracy", e.accuracy}, {"loss", e.loss}, {"examples", e.examples}}}});
  const bool best = e.accuracy > state_.best_accuracy;
  char line[128];
  std::snprintf(line, sizeof line, "step %lld: accuracy %.2f %% of %lld, loss %.4f%s",
                static_cast<long long>(steps_done), 100 * e.accuracy, static_cast<long long>(e.examples), e.loss,
                best ? ", the best so far" : "");
  progress_.say(line);
  if (!best) return;
  state_.best_accuracy = e.accuracy;
  state_.best_step = steps_done;
  if (options_.keep_best) save_student(directory_->model());
}

void Trainer::keep_waypoint(std::int64_t steps_done) {
  const std::int64_t n = options_.waypoint_spacing == Spacing::steps ? options_.keep_waypoints : 0;
  for (std::int64_t i = 1; i <= n; ++i)  // the end of phase i of n
    if (steps_done == schedule_.steps * i / n) save_student(directory_->waypoint(i));
}

void Trainer::save_student(const std::string& directory) const {
  const bool trained = schedule_.steps > 0;
  save_model(*student_, directory, source_.path(), trained ? options_.max_length : std::nullopt);
}

DataMarks Trainer::data_marks() const {
  DataMarks marks = {{"train", {train_.path, train_.size(), fingerprint(train_)}}};
  if (dev_) marks["dev"] = {dev_->path, dev_->size(), fingerprint(*dev_)};
  return marks;
}

void Trainer::write_checkpoint() {
  AtomicDirectory out(directory_->checkpoint());
  write_weights(student_->parameters(), out.staging() + "/student.safetensors");
  optimizer_->save(out.staging() + "/optimizer.safetensors");
  if (guide_) guide_->save(out.staging());
  directory_->write_state(out.staging(), state_, data_marks());
  out.commit();
}

double Trainer::seconds() const {
  return state_.seconds + std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
}

void Trainer::write_cost(const MemoryCost& cost) {
  nlohmann::json plan = plan_json(cost, memory_);
  plan["resident_peak_bytes"] = peak_resident_bytes();
  plan["measured_arena_bytes"] = memory_.measured_peak();
  directory_->write_json("plan.json", plan);
  if (steps_run_ == 0) return;
  directory_->write_json("cost.json", {{"seconds_total", seconds()},
                                       {"seconds_per_step", step_seconds_ / static_cast<double>(steps_run_)},
                                       {"tokens_per_second", static_cast<double>(tokens_run_) / step_seconds_},
                                       {"peak_resident_bytes", peak_resident_bytes()}});
}

void Trainer::restore() {
  const std::optional<RunState> state = directory_->restore(data_marks());
  if (!state) return;
  state_ = *state;
  const std::string from = directory_->checkpoint();
  read_weights(student_->parameters(), from + "/student.safetensors");
  optimizer_->load(from + "/optimizer.safetensors");
  if (guide_) guide_->load(from);
  if (drift_) drift_->restore(*directory_);
  progress_.say("resuming after step " + std::to_string(state_.step) + " of " + std::to_string(schedule_.steps));
}

}  // namespace cald
