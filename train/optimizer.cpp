#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "data/safetensors.h"
#include "engine/host_access.h"

namespace cald {
namespace {

const char* stored_dtype(DType t) { return t == DType::bf16 ? "BF16" : "F32"; }

}  // namespace

double LearningRateSchedule::factor(std::int64_t t) const {
  if (t < warmup) return static_cast<double>(t + 1) / static_cast<double>(warmup);  // eq:warmup
  const double progress =
      std::min(1.0, static_cast<double>(t - warmup) / static_cast<double>(std::max<std::int64_t>(1, steps - warmup)));
  switch (kind) {
    case Schedule::constant:
      return 1.0;
    case Schedule::linear:
      return 1.0 - progress;
    case Schedule::cosine:
      return floor + (1.0 - floor) * 0.5 * (1.0 + std::cos(3.141592653589793 * progress));
    case Schedule::exponential:
      return std::pow(floor, progress);
  }
  return 1.0;
}

Optimizer::Optimizer(ParameterSet& parameters, Allocator& memory, const RunOptions& o, double rate, double new_rate)
    : parameters_(parameters),
      rate_(rate),
      new_rate_(new_rate),
      weight_decay_(o.weight_decay),
      beta1_(o.beta1),
      beta2_(o.beta2),
      epsilon_(o.epsilon),
      clip_(o.clip),
      moments_(dtype_of(o.moments)),
      seed_(o.seed) {
  const auto zeros = [&](const Parameter& p) {
    const std::size_t bytes = static_cast<std::size_t>(p.shape.numel()) * size_of(moments_);
    Tensor t(memory.allocate(bytes, MemClass::optimizer, p.name.c_str()), p.shape, moments_);
    fill_bytes_on_host(t, [&](void* values) { std::memset(values, 0, bytes); });
    return t;
  };
  for (const Parameter& p : parameters.all()) {
    m_.push_back(zeros(p));
    v_.push_back(zeros(p));
    moved_.emplace_back();
    if (!p.is_table) continue;
    const std::int64_t rows = p.shape[0];
    moved_.back() = Tensor(memory.allocate(static_cast<std::size_t>(rows) * 4, MemClass::optimizer, p.name.c_str()),
                           {rows}, DType::i32);
    write_tensor(moved_.back(), std::vector<std::int32_t>(static_cast<std::size_t>(rows), 0).data());
  }
  norm_ = Tensor(memory.allocate(sizeof(float), MemClass::optimizer, "gradient norm"), {1}, DType::f32);
  slots_.reserve(m_.size());
}

std::size_t Optimizer::moment_bytes() const {
  std::size_t n = 0;
  for (const auto* moments : {&m_, &v_})
    for (const Tensor& t : *moments) n += t.bytes();
  return n;
}

void Optimizer::update(Context& c, double factor) {
  slots_.clear();
  for (const Parameter& p : parameters_.all())
    if (p.has_grad) slots_.push_back(slot(p, factor));
  c.set_op("update");
  if (clip_ > 0) c.launch(GradientNorm{&slots_, norm_});  // eq:clip
  if (!c.meta()) ++updates_;
  if (slots_.empty()) return;
  c.launch(AdamW{&slots_, updates_, beta1_, beta2_, static_cast<float>(epsilon_), static_cast<float>(clip_), norm_});
}

void Optimizer::update_now(Context& c, const Parameter& p, double factor) {
  slots_ = {slot(p, factor)};
  c.set_op("update");
  c.launch(AdamW{&slots_, updates_ + 1, beta1_, beta2_, static_cast<float>(epsilon_), 0.0f, norm_});
}

AdamWSlot Optimizer::slot(const Parameter& p, double factor) const {
  const double rate = (p.is_new ? new_rate_ : rate_) * factor;  // eq:new_rate
  AdamWSlot s{p.value, p.grad, m_[p.number], v_[p.number], static_cast<float>(rate), static_cast<float>(weight_decay_)};
  s.forward = p.copies.forward;
  s.backward = p.copies.backward;
  if (p.grad_rows) s.rows = p.grad_rows;
  if (p.is_table) s.moved = moved_[p.number];
  s.noise = static_cast<std::uint32_t>(stream_of(p.name) ^ seed_);
  return s;
}

void Optimizer::note_moved(const Parameter& p) {
  const auto rows = static_cast<std::size_t>(p.shape[0]), cols = static_cast<std::size_t>(p.shape[1]);
  std::vector<std::int32_t> moved(rows, 0);
  for (const Tensor& moment : {m_[p.number], v_[p.number]})
    look_at_bytes_on_host(moment, [&](const void* values) {
      const std::size_t row_bytes = cols * size_of(moments_);
      for (std::size_t r = 0; r < rows; ++r) {
        const auto* row = static_cast<const std::byte*>(values) + r * row_bytes;
        if (std::any_of(row, row + row_bytes, [](std::byte b) { return b != std::byte{0}; })) moved[r] = 1;
      }
    });
  write_tensor(moved_[p.number], moved.data());
}

void Optimizer::save(const std::string& path) const {
  SafetensorsWriter w(path);
  w.set_metadata("updates", std::to_string(updates_));
  for (const Parameter& p : parameters_.all())
    for (const char* moment : {"m.", "v."}) w.declare(moment + p.name, stored_dtype(moments_), {p.shape.numel()});
  std::size_t i = 0;
  for (const Parameter& p : parameters_.all()) {
    look_at_bytes_on_host(m_[i], [&](const void* values) { w.write("m." + p.name, values); });
    look_at_bytes_on_host(v_[i], [&](const void* values) { w.write("v." + p.name, values); });
    ++i;
  }
  w.commit();
}

void Optimizer::load(const std::string& path) {
  const SafetensorsFile file(path);
  const auto updates = file.metadata().find("updates");
  if (updates == file.metadata().end()) throw data_error(path, "the number of updates is missing");
  std::size_t i = 0;
  for (const Parameter& p : parameters_.all()) {
    const char* const dtype = stored_dtype(moments_);
    fill_bytes_on_host(m_[i], [&](void* values) { file.read_bytes("m." + p.name, dtype, p.shape, values); });
    fill_bytes_on_host(v_[i], [&](void* values) { file.read_bytes("v." + p.name, dtype, p.shape, values); });
    if (p.is_table) note_moved(p);
    ++i;
  }
  updates_ = std::stoll(updates->second);
}

}  // namespace cald
