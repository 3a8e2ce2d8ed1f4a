#include "train/mapped_weights.h"

#include <algorithm>

#include "train/model_io.h"

namespace cald {

MappedWeights::MappedWeights(Encoder& model, ModelDir from, Allocator& memory, MemClass cls)
    : model_(model), from_(std::move(from)), parts_(model.parts()) {
  const std::vector<StoredTensor> stored = stored_as_they_are(model, from_);
  std::vector<std::size_t> bytes(model.parts(), 0);
  for (Parameter& p : model.parameters().all()) {
    const std::size_t size = static_cast<std::size_t>(p.shape.numel()) * sizeof(float), part = model.part_of(p);
    if (const StoredTensor& s = stored[p.number]) {
      p.value = Tensor(std::make_shared<Storage>(s.file->bytes(*s.info), size), p.shape, DType::f32);
      parts_[part].push_back(s);
      bytes[part] += size;
    } else {
      p.value = Tensor(memory.allocate(size, cls, p.name.c_str()), p.shape, DType::f32);
      copied_ += size;
    }
  }
  load_parameters(model, from_, {}, [&](const Parameter& p) { return !stored[p.number]; });
  largest_part_ = *std::max_element(bytes.begin(), bytes.end());
  model.on_part_done([this](std::size_t part) {
    for (const StoredTensor& s : parts_[part]) s.file->drop(*s.info);
  });
}

}  // namespace cald
