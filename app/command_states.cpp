// cald states: hidden states and logits for given token ids, for comparison with any other implementation.
#include <memory>

#include "app/commands.h"
#include "app/exec_flags.h"
#include "data/atomic_file.h"
#include "data/safetensors.h"
#include "engine/open_device.h"
#include "kernels/transfer.h"
#include "train/batch_input.h"
#include "train/model_io.h"
#include "train/planned_memory.h"

namespace cald {
namespace {

struct Flags {
  std::string model, input, output;
  ExecFlags exec;
};

/// A [batch, seq] tensor of integers, checked to be within [0, limit).
std::vector<std::int32_t> read_ids(const SafetensorsFile& file, const TensorInfo& t, std::int64_t limit) {
  const std::string where = file.path() + ": tensor '" + t.name + "'";
  std::vector<std::int64_t> wide(static_cast<std::size_t>(t.numel()));
  file.read_i64(t, wide.data());
  std::vector<std::int32_t> ids;
  for (const std::int64_t id : wide) {
    if (id < 0 || id >= limit)
      throw data_error(where, "holds " + std::to_string(id) + ", wanted 0 to " + std::to_string(limit - 1));
    ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}

TokenBatch read_batch(const std::string& path, const EncoderConfig& c) {
  const SafetensorsFile file(path);
  const TensorInfo* ids = file.find("input_ids");
  if (!ids) throw data_error(path, "tensor 'input_ids' is missing");
  if (ids->shape.size() != 2)
    throw data_error(path, "tensor 'input_ids' has shape " + ids->shape_str() + ", wanted [B, S]");
  TokenBatch b;
  b.batch = ids->shape[0];
  b.seq = ids->shape[1];
  if (b.seq > c.max_tokens())
    throw data_error(path, "inputs are " + std::to_string(b.seq) + " tokens long, the model has " +
                               std::to_string(c.max_tokens()) + " positions");
  b.input_ids = read_ids(file, *ids, c.vocab_size);
  const auto optional = [&](const char* name, std::int64_t limit, std::int32_t otherwise) {
    const TensorInfo* t = file.find(name);
    if (!t) return std::vector<std::int32_t>(b.input_ids.size(), otherwise);
    if (t->shape != ids->shape)
      throw data_error(
          path, std::string("tensor '") + name + "' has shape " + t->shape_str() + ", wanted " + ids->shape_str());
    return read_ids(file, *t, limit);
  };
  b.mask = optional("attention_mask", 2, 1);
  b.type_ids = optional("token_type_ids", c.type_vocab, 0);
  b.lengths.assign(static_cast<std::size_t>(b.batch), 0);
  for (std::size_t i = 0; i < b.mask.size(); ++i) b.lengths[i / static_cast<std::size_t>(b.seq)] += b.mask[i];
  b.labels.assign(static_cast<std::size_t>(b.batch), -1);
  for (std::int64_t r = 0; r < b.batch; ++r) b.sample_ids.push_back(static_cast<std::int32_t>(r));
  return b;
}

/// The forward pass; `take` sees each output by its name. On the meta device `host` is null.
template <class Take>
void forward(Context& c, const Encoder& model, const TokenBatch& shape, const TokenBatch* host, Take&& take) {
  const LabelledInput in = make_input(c, shape.batch, shape.seq, host, model.config());
  Tape tape(c, false);
  const EncoderOutput out = model.forward(tape, in.encoder, {}, true);
  for (std::size_t i = 0; i < out.states.size(); ++i) take("hidden_states." + std::to_string(i), out.states[i]);
  if (out.logits) take("logits", out.logits);
}

int write_states(const Flags& f) {
  if (is_same_file(f.output, f.input)) throw usage_error("--output " + f.output + " is the input");
  const ModelDir source(f.model);
  const OpenDevice device(exec_of(f.exec));
  HeapAllocator heap(device.exec().device);
  const std::unique_ptr<Encoder> model = load_encoder(source, heap, device.exec());
  const TokenBatch batch = read_batch(f.input, model->config());
  PlannedMemory memory(device.exec(), heap);
  SafetensorsWriter out(f.output);
  const PlanKey key{"states", batch.batch, batch.seq};
  memory.plan(key, [&](Context& c) {
    forward(c, *model, batch, nullptr, [&](const std::string& name, const Tensor& t) { out.declare(name, t.shape()); });
  });
  memory.run(key, [&](Context& c) {
    std::vector<float> host;
    forward(c, *model, batch, &batch, [&](const std::string& name, const Tensor& t) {
      host.resize(static_cast<std::size_t>(t.numel()));
      c.launch(Download{t, host.data()});
      c.synchronize();
      out.write(name, host.data());
    });
  });
  out.commit();
  return 0;
}

}  // namespace

CommandBody add_states(CLI::App& command) {
  auto f = std::make_shared<Flags>();
  command.add_option("model", f->model, "model directory")->required();
  command
      .add_option("--input", f->input,
                  "safetensors with input_ids [B, S] and optionally attention_mask, token_type_ids")
      ->required();
  command.add_option("--output", f->output, "safetensors to write: hidden_states.0 to .N, and logits with a head; f32")
      ->required();
  add_exec_flags(command, f->exec);
  return [f] { return write_states(*f); };
}

}  // namespace cald
