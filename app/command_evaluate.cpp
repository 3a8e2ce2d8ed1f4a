// cald evaluate and cald predict.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/cli_options.h"
#include "app/commands.h"
#include "app/exec_flags.h"
#include "app/text_table.h"
#include "data/atomic_file.h"
#include "data/json_text.h"
#include "engine/open_device.h"
#include "train/cost.h"
#include "train/evaluate.h"
#include "train/model_io.h"

namespace cald {
namespace {

/// What both commands need: a model in memory and its tokenizer.
struct Classifier {
  Classifier(const std::string& directory, const ExecFlags& exec)
      : source(directory),
        tokenizer(load_tokenizer_of(source)),
        device(exec_of(exec)),
        heap(device.exec().device),
        memory(device.exec(), heap) {
    model = load_encoder(source, heap, device.exec());
    if (model->config().labels.empty())
      throw data_error(directory, "has no classification head; 'cald finetune' gives it one");
  }

  ModelDir source;
  std::unique_ptr<Tokenizer> tokenizer;
  OpenDevice device;
  HeapAllocator heap;
  PlannedMemory memory;
  std::unique_ptr<Encoder> model;
};

struct EvaluateFlags {
  std::string model, data, json;
  RunOptions columns;
  std::optional<std::int64_t> max_length;
  std::int64_t batch_size = 64;
  ExecFlags exec;
};

/// As long as the model's training inputs, where nothing else is asked for.
std::int64_t length_limit(std::optional<std::int64_t> asked, const Classifier& c) {
  const std::int64_t positions = c.model->config().max_tokens();
  if (asked.value_or(0) > positions)
    throw usage_error("--max-length " + std::to_string(*asked) + " is more than the model's " +
                      std::to_string(positions) + " positions");
  constexpr std::int64_t kUsual = 512;
  return asked.value_or(std::min(positions, trained_length(c.source).value_or(kUsual)));
}

void add_max_length(CLI::App& command, std::optional<std::int64_t>& max_length) {
  command
      .add_option("--max-length", max_length,
                  "longest input in tokens; longer ones are cut (default: the model's model_max_length, which training "
                  "sets, else its positions, at most 512)")
      ->check(whole_number(3, kMostRows));
}

int evaluate_model(const EvaluateFlags& f) {
  if (is_same_file(f.json, f.data)) throw usage_error("--json " + f.json + " is the data that is evaluated on");
  Classifier c(f.model, f.exec);
  const LabelMap labels = LabelMap::from_names(c.model->config().labels);
  const EncodedTask task = load_task(f.data, f.columns, {c.tokenizer.get(), length_limit(f.max_length, c)}, &labels);
  const auto start = std::chrono::steady_clock::now();
  const Evaluation e = evaluate(*c.model, task, f.batch_size, c.memory);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("accuracy %.2f %% of %lld examples, loss %.4f nats, %s, peak resident memory %s\n", 100 * e.accuracy,
              static_cast<long long>(e.examples), e.loss, human_seconds(seconds).c_str(),
              human_bytes(peak_resident_bytes()).c_str());
  if (f.json.empty()) return 0;
  const nlohmann::ordered_json j = {
      {"model", f.model},       {"data", f.data},     {"accuracy", e.accuracy},       {"loss", e.loss},
      {"examples", e.examples}, {"seconds", seconds}, {"predictions", e.predictions}, {"labels", task.labels}};
  write_file_atomically(f.json, j.dump() + "\n");
  return 0;
}

struct PredictFlags {
  std::string model, file, pair;
  std::optional<std::string> text;
  bool pairs = false;
  std::optional<std::int64_t> max_length;
  ExecFlags exec;
};

/// The texts to classify: the argument, a file's lines, or the lines of standard input.
std::vector<std::string> texts_of(const PredictFlags& f) {
  if (f.text && !f.file.empty()) throw usage_error("a text and --file are both given, wanted one of them");
  if (f.text) return {*f.text};
  std::vector<std::string> texts;
  std::string line;
  if (!f.file.empty()) {
    const std::string all = read_text_file(f.file, std::size_t{1} << 30);
    for (std::size_t at = 0; at < all.size();) {
      const std::size_t end = std::min(all.find('\n', at), all.size());
      texts.push_back(all.substr(at, end - at));
      at = end + 1;
    }
    return texts;
  }
  while (std::getline(std::cin, line)) texts.push_back(line);
  return texts;
}

/// A line as the tokenizer takes it; `pair` is the second text of all lines, if it is not empty.
struct InputLine {
  InputLine(std::string_view line, bool holds_pair, std::string_view pair) {
    if (!holds_pair) {
      first = trimmed(line);
      if (!pair.empty()) second = trimmed(pair);
      return;
    }
    const std::size_t tab = line.find('\t');
    if (tab == line.npos || line.find('\t', tab + 1) != line.npos)
      throw Error("has " + std::to_string(std::count(line.begin(), line.end(), '\t')) +
                  " tabs, wanted two texts with one between them");
    first = trimmed(line.substr(0, tab));
    second = trimmed(line.substr(tab + 1));
  }
  std::string first;
  std::optional<std::string> second;
};

int predict(const PredictFlags& f) {
  if (f.pairs && !f.pair.empty()) throw usage_error("--pairs and --pair are both given, wanted one of them");
  Classifier c(f.model, f.exec);
  const std::int64_t limit = length_limit(f.max_length, c);
  EncodedTask task;
  task.path = f.text ? "text" : f.file.empty() ? "standard input" : f.file;
  std::int64_t number = 0;
  for (const std::string& text : texts_of(f)) {
    ++number;
    try {
      const InputLine input(text, f.pairs, f.pair);
      task.encodings.push_back(c.tokenizer->encode(input.first, input.second, limit));
    } catch (const Error& e) {
      throw data_error(task.path + ":" + std::to_string(number), e.what());
    }
    task.labels.push_back(-1);
  }
  const Evaluation e = evaluate(*c.model, task, 32, c.memory);
  // A name may hold a tab or a line's end, which would make another field or line of it.
  std::vector<std::string> labels;
  for (const std::string& name : c.model->config().labels) labels.push_back(one_line(name));
  for (std::size_t i = 0; i < e.predictions.size(); ++i) {
    std::printf("%s", labels[static_cast<std::size_t>(e.predictions[i])].c_str());
    for (std::size_t k = 0; k < labels.size(); ++k)
      std::printf("\t%s=%.6f", labels[k].c_str(), static_cast<double>(e.probabilities[i][k]));
    std::printf("\n");
  }
  return 0;
}

}  // namespace

CommandBody add_evaluate(CLI::App& command) {
  auto f = std::make_shared<EvaluateFlags>();
  command.add_option("model", f->model, "model directory")->required();
  command.add_option("--data,data", f->data, "data to evaluate on: .tsv, .csv or .jsonl")->required();
  command.add_option("--json", f->json, "also write the result, with every prediction, to this file");
  command.add_option("--text-column", f->columns.text_column, "column of the text");
  command.add_option("--pair-column", f->columns.pair_column, "column of the second text");
  command.add_option("--label-column", f->columns.label_column, "column of the label");
  add_max_length(command, f->max_length);
  command.add_option("--batch-size", f->batch_size, "examples of a batch")
      ->check(whole_number(1, kMostRows))
      ->capture_default_str();
  add_exec_flags(command, f->exec);
  return [f] { return evaluate_model(*f); };
}

CommandBody add_predict(CLI::App& command) {
  auto f = std::make_shared<PredictFlags>();
  command.add_option("model", f->model, "model directory")->required();
  command.add_option("text", f->text, "the text; without it and --file, each line of standard input is one");
  command.add_option("--file", f->file, "file with one text a line");
  command.add_option("--pair", f->pair, "second text, for models of pairs");
  command.add_flag("--pairs", f->pairs, "each line is two texts with a tab between them, for models of pairs");
  add_max_length(command, f->max_length);
  add_exec_flags(command, f->exec);
  return [f] { return predict(*f); };
}

}  // namespace cald
