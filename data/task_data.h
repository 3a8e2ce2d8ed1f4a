// Data of classification tasks: texts with labels, the order in which a run sees them, and padded batches.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace cald {

/// The classes of a task: their names by id.
class LabelMap {
 public:
  LabelMap() = default;
  /// From the labels that occur: numbers "0".."n-1" stand for themselves and get transformers' names LABEL_0 ..., other
  /// labels are numbered in their alphabetical order.
  static LabelMap from_values(const std::vector<std::string>& values);
  /// From the names of a model's classes.
  static LabelMap from_names(const std::vector<std::string>& names);

  /// The id of a label as a file has it, by name or by number; -1 if there is none.
  std::int32_t find(const std::string& value) const;
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::vector<std::string> names_;
};

struct TextExample {
  std::string text, pair;
  bool has_pair = false;
  std::int32_t label = -1;
  bool labelled = false;
};

struct TextDataset {
  std::vector<TextExample> examples;
  LabelMap labels;
};

/// Names of the columns; empty: found by the names that are usual for them.
struct TextColumns {
  std::string text, pair, label;
};

/// Reads a table of examples. Without names the columns are the table's usual_columns(), a pair where it has one; a
/// named text without a named pair stands alone; the label's column is `label`. `known` fixes the classes: a label
/// beyond them is an Error with its line. ASCII white space around texts is cut off.
TextDataset load_text_dataset(const std::string& path, const TextColumns& columns, const LabelMap* known);

/// The batches of a run, a pure function of the seed: the n-th is the same whether or not the run was interrupted.
class BatchOrder {
 public:
  struct Options {
    bool shuffled = true;
    bool bucket = true;  ///< with shuffled: examples of similar length share a batch
    std::uint64_t seed = 0;
  };
  BatchOrder(std::vector<std::int64_t> lengths, std::int64_t batch_size, Options options);

  /// ceil(examples / batch size); one batch of an epoch is what is left, and with buckets it may come at any place.
  std::int64_t batches_per_epoch() const { return per_epoch_; }
  /// Rows of batch `n`, counted from the run's start. Each epoch holds every example once.
  std::vector<std::int64_t> batch(std::int64_t n) const;
  /// Share of an epoch's padded positions that hold no token, each batch padded to its longest; of the first epoch.
  double pad_share() const;

 private:
  void make_epoch(std::int64_t epoch) const;

  std::vector<std::int64_t> lengths_;
  std::int64_t batch_size_, per_epoch_;
  Options options_;
  mutable std::int64_t made_ = -1;  // the epoch that rows_ and starts_ hold
  mutable std::vector<std::int64_t> rows_;
  mutable std::vector<std::int64_t> batch_of_;  // order of the batches
};

/// A text or a label as it counts: without white space around it.
std::string trimmed(std::string_view s);

/// A padded batch on the host, row-major [batch, seq].
struct TokenBatch {
  std::int64_t batch = 0, seq = 0;
  std::vector<std::int32_t> input_ids, type_ids, mask;
  std::vector<std::int32_t> lengths, labels, sample_ids;  ///< (batch)

  std::int64_t valid_tokens() const;
  /// Rows [begin, end), as long as before.
  TokenBatch rows(std::int64_t begin, std::int64_t end) const;
};

/// Pads the rows' encodings on the right to the longest of them. sample_ids count from 0.
TokenBatch make_batch(const std::vector<Tokenizer::Encoding>& encodings, const std::vector<std::int32_t>& labels,
                      const std::vector<std::int64_t>& rows, std::int32_t pad_id);

}  // namespace cald
