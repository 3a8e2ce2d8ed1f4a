#include "train/task.h"

#include <algorithm>
#include <numeric>

namespace cald {

std::int64_t EncodedTask::longest() const {
  std::int64_t n = 0;
  for (const std::int64_t length : lengths()) n = std::max(n, length);
  return n;
}

double EncodedTask::mean_length() const {
  const std::vector<std::int64_t> all = lengths();
  return all.empty() ? 0.0
                     : static_cast<double>(std::accumulate(all.begin(), all.end(), std::int64_t{0})) /
                           static_cast<double>(all.size());
}

std::vector<std::int64_t> EncodedTask::lengths() const {
  std::vector<std::int64_t> n;
  for (const auto& e : encodings) n.push_back(static_cast<std::int64_t>(e.ids.size()));
  return n;
}

std::uint64_t fingerprint(const EncodedTask& task) {
  std::uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a, by words
  const auto add = [&](std::uint64_t word) { hash = (hash ^ word) * 0x100000001B3u; };
  const auto add_all = [&](const auto& values) {
    add(values.size());
    for (const auto v : values) add(static_cast<std::uint32_t>(v));
  };
  for (const Tokenizer::Encoding& e : task.encodings) add_all(e.ids), add_all(e.type_ids);
  add_all(task.labels);
  for (const std::string& name : task.label_map.names()) add_all(name);
  return hash;
}

EncodedTask load_task(const std::string& path, const RunOptions& o, const TextRules& rules, const LabelMap* known) {
  const TextDataset data = load_text_dataset(path, {o.text_column, o.pair_column, o.label_column}, known);
  EncodedTask task;
  task.path = path;
  task.label_map = data.labels;
  for (const TextExample& e : data.examples) {
    const std::optional<std::string_view> pair = e.has_pair ? std::optional<std::string_view>(e.pair) : std::nullopt;
    task.encodings.push_back(rules.tokenizer->encode(e.text, pair, rules.max_length));
    task.labels.push_back(e.labelled ? e.label : -1);
  }
  return task;
}

std::vector<std::vector<std::int64_t>> batches_by_length(const EncodedTask& task, std::int64_t batch_size) {
  const std::vector<std::int64_t> lengths = task.lengths();
  std::vector<std::int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return lengths[static_cast<std::size_t>(a)] > lengths[static_cast<std::size_t>(b)];
  });
  std::vector<std::vector<std::int64_t>> batches;
  for (std::size_t at = 0; at < order.size(); at += static_cast<std::size_t>(batch_size)) {
    const std::size_t end = std::min(order.size(), at + static_cast<std::size_t>(batch_size));
    batches.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(at),
                         order.begin() + static_cast<std::ptrdiff_t>(end));
  }
  return batches;
}

TokenBatch gather(const EncodedTask& task, const std::vector<std::int64_t>& rows, std::int64_t pad_id) {
  return make_batch(task.encodings, task.labels, rows, static_cast<std::int32_t>(pad_id));
}

}  // namespace cald
