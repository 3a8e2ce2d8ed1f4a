#include "data/task_data.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "data/json_text.h"
#include "data/table.h"
#include "engine/base/error.h"
#include "engine/base/rng.h"

namespace cald {
namespace {

bool is_small_number(const std::string& s) {
  return !s.empty() && s.size() < 9 && s.find_first_not_of("0123456789") == std::string::npos;
}

/// The columns named, or else the usual ones.
UsualColumns text_columns(const Table& t, const TextColumns& named) {
  if (!named.text.empty()) return {named.text.c_str(), named.pair.c_str()};
  const UsualColumns usual = usual_columns(t);
  return named.pair.empty() ? usual : UsualColumns{usual.text, named.pair.c_str()};
}

/// The classes of a file's labels. An empty label and -1 stand for none: such a row cannot be trained on.
LabelMap labels_of(const Table& table, int label) {
  std::vector<std::string> values;
  for (std::size_t r = 0; r < table.rows(); ++r) {
    values.push_back(trimmed(table.at(r, label)));
    if (values.back().empty() || values.back() == "-1")
      throw data_error(table.where(r),
                       "the label is " + (values.back().empty() ? "empty" : values.back()) + ", which stands for none");
  }
  try {
    return LabelMap::from_values(values);
  } catch (const Error& e) {
    throw data_error(table.path(), e.what());
  }
}

/// Draws a permutation of [from, to) of v (Fisher and Yates).
void shuffle(std::vector<std::int64_t>& v, RandomStream& random) {
  for (std::size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[random.below(static_cast<std::uint32_t>(i))]);
}

}  // namespace

std::string trimmed(std::string_view s) {
  static constexpr const char* kSpace = " \t\r\n\f\v";
  const std::size_t from = s.find_first_not_of(kSpace);
  return from == s.npos ? "" : std::string(s.substr(from, s.find_last_not_of(kSpace) - from + 1));
}

LabelMap LabelMap::from_values(const std::vector<std::string>& values) {
  constexpr std::size_t kMaxClasses = 65536;
  const std::set<std::string> distinct(values.begin(), values.end());
  LabelMap map;
  if (std::all_of(distinct.begin(), distinct.end(), is_small_number)) {
    std::size_t classes = 0;
    for (const std::string& v : distinct) classes = std::max<std::size_t>(classes, std::stoul(v) + 1);
    if (classes > kMaxClasses)
      throw Error(ErrorKind::data, "the labels go up to " + std::to_string(classes - 1) + ", wanted numbers below " +
                                       std::to_string(kMaxClasses));
    for (std::size_t i = 0; i < classes; ++i) map.names_.push_back("LABEL_" + std::to_string(i));
  } else {
    map.names_.assign(distinct.begin(), distinct.end());
  }
  return map;
}

LabelMap LabelMap::from_names(const std::vector<std::string>& names) {
  LabelMap map;
  map.names_ = names;
  return map;
}

std::int32_t LabelMap::find(const std::string& value) const {
  const auto it = std::find(names_.begin(), names_.end(), value);
  if (it != names_.end()) return static_cast<std::int32_t>(it - names_.begin());
  if (!is_small_number(value) || std::stoul(value) >= names_.size()) return -1;
  // Where the names are numbers themselves, "0" is not the first of them.
  if (std::any_of(names_.begin(), names_.end(), is_small_number)) return -1;
  return static_cast<std::int32_t>(std::stol(value));
}

TextDataset load_text_dataset(const std::string& path, const TextColumns& columns, const LabelMap* known) {
  const Table table = Table::read(path);
  const UsualColumns names = text_columns(table, columns);
  const int text = table.column(names.text), pair = names.pair[0] ? table.column(names.pair) : -1;
  const int label = table.column(columns.label.empty() ? "label" : columns.label);
  TextDataset data;
  data.labels = known ? *known : labels_of(table, label);
  for (std::size_t r = 0; r < table.rows(); ++r) {
    TextExample e;
    e.text = trimmed(table.at(r, text));
    e.has_pair = pair >= 0;
    if (e.has_pair) e.pair = trimmed(table.at(r, pair));
    const std::string value = trimmed(table.at(r, label));
    e.label = data.labels.find(value);
    e.labelled = true;
    if (e.label < 0) {
      std::string classes;
      for (const std::string& n : data.labels.names()) classes += (classes.empty() ? "" : ", ") + n;
      throw data_error(table.where(r), "the label " + in_quotes(value) + " is unknown; the labels are " + classes);
    }
    data.examples.push_back(std::move(e));
  }
  return data;
}

BatchOrder::BatchOrder(std::vector<std::int64_t> lengths, std::int64_t batch_size, Options options)
    : lengths_(std::move(lengths)), batch_size_(batch_size), options_(options) {
  if (lengths_.empty()) throw Error("an order of batches needs examples");
  if (batch_size_ < 1) throw usage_error("the batch size is " + std::to_string(batch_size_) + ", wanted 1 or more");
  const auto n = static_cast<std::int64_t>(lengths_.size());
  per_epoch_ = (n + batch_size_ - 1) / batch_size_;
}

void BatchOrder::make_epoch(std::int64_t epoch) const {
  made_ = epoch;
  rows_.resize(lengths_.size());
  batch_of_.resize(static_cast<std::size_t>(per_epoch_));
  std::iota(rows_.begin(), rows_.end(), std::int64_t{0});
  std::iota(batch_of_.begin(), batch_of_.end(), std::int64_t{0});
  if (!options_.shuffled) return;
  RandomStream random(options_.seed, stream_of("order") + static_cast<std::uint64_t>(epoch));
  shuffle(rows_, random);
  if (!options_.bucket) return;
  // Sorted within pools of the shuffled order: batches of one length, whose members still change from epoch to epoch.
  constexpr std::int64_t kBatchesPerPool = 50;
  const auto pool = static_cast<std::size_t>(kBatchesPerPool * batch_size_);
  for (std::size_t at = 0; at < rows_.size(); at += pool)
    std::stable_sort(rows_.begin() + static_cast<std::ptrdiff_t>(at),
                     rows_.begin() + static_cast<std::ptrdiff_t>(std::min(rows_.size(), at + pool)),
                     [&](std::int64_t a, std::int64_t b) {
                       return lengths_[static_cast<std::size_t>(a)] < lengths_[static_cast<std::size_t>(b)];
                     });
  shuffle(batch_of_, random);
}

std::vector<std::int64_t> BatchOrder::batch(std::int64_t n) const {
  const std::int64_t epoch = n / per_epoch_;
  if (epoch != made_) make_epoch(epoch);
  const std::int64_t first = batch_of_[static_cast<std::size_t>(n % per_epoch_)] * batch_size_;
  const std::int64_t last = std::min(first + batch_size_, static_cast<std::int64_t>(rows_.size()));
  return {rows_.begin() + first, rows_.begin() + last};
}

double BatchOrder::pad_share() const {
  std::int64_t positions = 0, tokens = 0;
  for (std::int64_t n = 0; n < per_epoch_; ++n) {
    std::int64_t longest = 0;
    const std::vector<std::int64_t> rows = batch(n);
    for (const std::int64_t r : rows) {
      const std::int64_t length = lengths_[static_cast<std::size_t>(r)];
      longest = std::max(longest, length);
      tokens += length;
    }
    positions += longest * static_cast<std::int64_t>(rows.size());
  }
  return positions > 0 ? 1 - static_cast<double>(tokens) / static_cast<double>(positions) : 0;
}

TokenBatch TokenBatch::rows(std::int64_t begin, std::int64_t end) const {
  TokenBatch part;
  part.batch = end - begin;
  part.seq = seq;
  const auto cut = [&](const std::vector<std::int32_t>& from, std::vector<std::int32_t>& to, std::int64_t width) {
    to.assign(from.begin() + begin * width, from.begin() + end * width);
  };
  cut(input_ids, part.input_ids, seq), cut(type_ids, part.type_ids, seq), cut(mask, part.mask, seq);
  cut(lengths, part.lengths, 1), cut(labels, part.labels, 1), cut(sample_ids, part.sample_ids, 1);
  return part;
}

std::int64_t TokenBatch::valid_tokens() const {
  return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
}

TokenBatch make_batch(const std::vector<Tokenizer::Encoding>& encodings, const std::vector<std::int32_t>& labels,
                      const std::vector<std::int64_t>& rows, std::int32_t pad_id) {
  TokenBatch b;
  b.batch = static_cast<std::int64_t>(rows.size());
  for (const std::int64_t r : rows)
    b.seq = std::max(b.seq, static_cast<std::int64_t>(encodings[static_cast<std::size_t>(r)].ids.size()));
  const auto cells = static_cast<std::size_t>(b.batch * b.seq);
  b.input_ids.assign(cells, pad_id);
  b.type_ids.assign(cells, 0);
  b.mask.assign(cells, 0);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Tokenizer::Encoding& e = encodings[static_cast<std::size_t>(rows[i])];
    const auto at = static_cast<std::ptrdiff_t>(i) * b.seq;
    std::copy(e.ids.begin(), e.ids.end(), b.input_ids.begin() + at);
    std::copy(e.type_ids.begin(), e.type_ids.end(), b.type_ids.begin() + at);
    std::fill_n(b.mask.begin() + at, e.ids.size(), 1);
    b.lengths.push_back(static_cast<std::int32_t>(e.ids.size()));
    b.labels.push_back(labels[static_cast<std::size_t>(rows[i])]);
    b.sample_ids.push_back(static_cast<std::int32_t>(i));
  }
  return b;
}

}  // namespace cald
