// A frozen model's weights, left in the files that hold them.
#pragma once
#include <vector>

#include "data/model_dir.h"
#include "models/encoder.h"

namespace cald {

/// Nothing is copied that a file holds as f32. The pages of a part of the model (embeddings, a layer, the head) are
/// given back when a pass that records nothing has gone through it, and come back from the file, or the system's cache
/// of it, in the next pass. So no more than the largest part lies in the process's memory.
class MappedWeights {
 public:
  /// Gives the parameters of `model` their values; what the files hold in another form is copied to `memory`. The model
  /// must not be used once this has ended. The files must not be changed in place meanwhile; to replace them is
  /// harmless. Errors: see load_parameters. On the CPU alone.
  MappedWeights(Encoder& model, ModelDir from, Allocator& memory, MemClass cls);
  MappedWeights(const MappedWeights&) = delete;
  MappedWeights& operator=(const MappedWeights&) = delete;
  ~MappedWeights() { model_.on_part_done({}); }

  /// Bytes of what was copied, and of the largest part of what was not.
  std::size_t copied() const { return copied_; }
  std::size_t largest_part() const { return largest_part_; }

 private:
  Encoder& model_;
  ModelDir from_;
  std::vector<std::vector<StoredTensor>> parts_;
  std::size_t copied_ = 0, largest_part_ = 0;
};

}  // namespace cald
