// A classification task's data, tokenised.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/task_data.h"
#include "data/tokenizer.h"
#include "train/options.h"

namespace cald {

/// Tokenised examples with their labels; the texts themselves are let go.
struct EncodedTask {
  std::string path;
  std::vector<Tokenizer::Encoding> encodings;
  std::vector<std::int32_t> labels;
  LabelMap label_map;

  std::int64_t size() const { return static_cast<std::int64_t>(encodings.size()); }
  std::vector<std::int64_t> lengths() const;  ///< tokens of each example
  std::int64_t longest() const;
  double mean_length() const;
};

/// Differs with the tokens, the labels and the classes' names of the examples, and with their order.
std::uint64_t fingerprint(const EncodedTask& task);

/// How texts become token ids for one model.
struct TextRules {
  const Tokenizer* tokenizer;
  std::int64_t max_length;  ///< tokens, specials included
};

/// Reads and tokenises a data file. `known` fixes the labels (a development set uses the training set's); null: they
/// are taken from the file.
EncodedTask load_task(const std::string& path, const RunOptions& columns, const TextRules& rules,
                      const LabelMap* known);

/// Examples in the order of their lengths, longest first, cut into batches: for evaluation, where order is free.
std::vector<std::vector<std::int64_t>> batches_by_length(const EncodedTask& task, std::int64_t batch_size);

/// The chosen examples as one padded batch.
TokenBatch gather(const EncodedTask& task, const std::vector<std::int64_t>& rows, std::int64_t pad_id);

}  // namespace cald
