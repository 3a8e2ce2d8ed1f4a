// Tables: what each layout means, and the line that an error names.
#include "data/table.h"

#include <gtest/gtest.h>

#include "tests/data/temp_folder.h"

namespace cald {
namespace {

using Cells = std::vector<std::vector<std::string>>;

Cells cells_of(const Table& t) {
  Cells out;
  for (std::size_t r = 0; r < t.rows(); ++r) {
    out.emplace_back();
    for (std::size_t c = 0; c < t.columns().size(); ++c) out.back().push_back(t.at(r, static_cast<int>(c)));
  }
  return out;
}

Table read(const char* name, std::string_view content, std::size_t* short_rows = nullptr) {
  const TempFolder folder;
  return Table::read(folder.put(name, content), short_rows);
}

std::string error(const char* name, std::string_view content) {
  return error_of([&] { read(name, content); });
}

TEST(Table, TsvHasNoQuotes) {
  const Table t = read("a.tsv", "sentence\tlabel\nsay \"hi\"\t1\n\"open\t0\r\n\t\n");
  EXPECT_EQ(t.columns(), (std::vector<std::string>{"sentence", "label"}));
  EXPECT_EQ(cells_of(t), (Cells{{"say \"hi\"", "1"}, {"\"open", "0"}, {"", ""}}));
}

TEST(Table, TheLastLineNeedsNoEndAndEmptyLinesArePassedOver) {
  EXPECT_EQ(cells_of(read("a.tsv", "a\n\n1\n\r\n2")), (Cells{{"1"}, {"2"}}));
  EXPECT_EQ(cells_of(read("a.csv", "a\n\n1\n\r\n2")), (Cells{{"1"}, {"2"}}));
}

TEST(Table, AByteOrderMarkIsNoPartOfAName) {
  for (const char* name : {"a.tsv", "a.csv"}) EXPECT_EQ(read(name, "\xEF\xBB\xBFx\n1\n").columns()[0], "x");
}

TEST(Table, CsvQuotes) {
  const Table t =
      read("a.csv",
           "text,label\r\n\"a, \"\"b\"\"\",1\r\n\"two\nlines\r\nthree\",\"0\"\n,\"\"\nin \"the\" middle,5\n\"\"\"\","
           "\n");
  EXPECT_EQ(cells_of(t),
            (Cells{{"a, \"b\"", "1"}, {"two\nlines\r\nthree", "0"}, {"", ""}, {"in \"the\" middle", "5"}, {"\"", ""}}));
  // Lines are those of the file, also behind a text of several.
  EXPECT_TRUE(t.where(0).ends_with("a.csv:2"));
  EXPECT_TRUE(t.where(1).ends_with("a.csv:3"));
  EXPECT_TRUE(t.where(2).ends_with("a.csv:6"));
}

TEST(Table, JsonLinesHaveTheFirstLinesKeys) {
  const Table t =
      read("a.jsonl", "{\"text\": \"a\\tb\", \"label\": 1}\n\n{\"label\": true, \"text\": \"ü\", \"more\": 1}\n");
  EXPECT_EQ(t.at(0, t.column("text")), "a\tb");
  EXPECT_EQ(t.at(0, t.column("label")), "1");
  EXPECT_EQ(t.at(1, t.column("text")), "ü");
  EXPECT_EQ(t.at(1, t.column("label")), "true");
  EXPECT_EQ(t.find_column("more"), -1);
  EXPECT_TRUE(t.where(1).ends_with("a.jsonl:3"));
}

TEST(Table, ArrowRowsCountAsLines) {
  const std::string folder = CALD_SOURCE_DIR "/tests/golden/arrow/";
  const Table t = Table::read(folder + "pairs.arrow");
  EXPECT_EQ(t.columns(), (std::vector<std::string>{"sentence1", "sentence2", "label", "idx"}));
  EXPECT_EQ(cells_of(t), (Cells{{"One first .", "One second .", "0", "8"}, {"Two first .", "Two second .", "1", "9"}}));
  EXPECT_TRUE(t.where(1).ends_with("pairs.arrow:2"));
  EXPECT_CONTAINS(error_of([&] { Table::read(folder + "types.arrow"); }),
                  "types.arrow:1: the value of column 'large' is null");
}

TEST(Table, AMissingColumnListsThoseThereAre) {
  const Table t = read("a.tsv", "sentence\tlabel\nx\t1\n");
  EXPECT_CONTAINS(error_of([&] { t.column("text"); }),
                  "a.tsv: there is no column 'text'; the columns are 'sentence', 'label'");
}

TEST(Table, ErrorsNameTheLine) {
  EXPECT_CONTAINS(error("a.tsv", "a\tb\n1\t2\n3\n"), "a.tsv:3: has 1 fields, wanted 2");
  EXPECT_CONTAINS(error("a.tsv", "a\tb\n1\t2\t3\n"), "a.tsv:2: has 3 fields, wanted 2");
  EXPECT_CONTAINS(error("a.csv", "a,b\n\"1\n2\",3\n4\n"), "a.csv:4: has 1 fields, wanted 2");
  EXPECT_CONTAINS(error("a.csv", "a,b\n1,2\n3,\"4\n5\n"), "a.csv:3: a quote opens here and is never closed");
  EXPECT_CONTAINS(error("a.csv", "a,b\n1,2\n\"3\"x,4\n"), "a.csv:3: a field goes on after its closing quote");
  EXPECT_CONTAINS(error("a.csv", "a,b\n\"\"x,4\n"), "a.csv:2: a field goes on after its closing quote");
  EXPECT_CONTAINS(error("a.tsv", "a\tb\n1\tx\xFFy\n"), "a.tsv:2: broken UTF-8 in column 'b', byte 1: 0xFF");
  EXPECT_CONTAINS(error("a.tsv", "a\tb\ta\n1\t2\t3\n"), "a.tsv:1: two columns have the name 'a'");
  EXPECT_CONTAINS(error("a.tsv", "\xFF\n1\n"), "a.tsv:1: a column's name is broken UTF-8");
  EXPECT_CONTAINS(error("a.jsonl", "{\"a\": 1}\n[1]\n"), "a.jsonl:2: wanted a JSON object");
  EXPECT_CONTAINS(error("a.jsonl", "{\"a\": 1}\n{\"a\": \n"), "a.jsonl:2: ");
  EXPECT_CONTAINS(error("a.jsonl", "{\"a\": 1}\n{\"b\": 1}\n"), "a.jsonl:2: the key 'a' is missing");
  EXPECT_CONTAINS(error("a.jsonl", "{\"a\": null}\n"), "a.jsonl:1: the key 'a' is null");
  EXPECT_CONTAINS(error("a.jsonl", "{\"a\": \"\xED\xA0\x80\"}\n"), "a.jsonl:1: ");
}

TEST(Table, WithoutExamplesThereIsNoTable) {
  for (const char* name : {"a.tsv", "a.csv", "a.jsonl"}) {
    EXPECT_CONTAINS(error(name, ""), "the file holds no examples");
    EXPECT_CONTAINS(error(name, "\n\n"), "the file holds no examples");
  }
  EXPECT_CONTAINS(error("a.tsv", "sentence\tlabel\n"), "the file holds no examples");
  EXPECT_CONTAINS(error("a.txt", "sentence\n1\n"), "a.txt: the name must end in .tsv, .csv");
  EXPECT_CONTAINS(error_of([] { Table::read("/nowhere/a.tsv"); }), "/nowhere/a.tsv: ");
}

TEST(Table, ShortRowsAreCountedWhereAsked) {
  std::size_t short_rows = 9;  // what was there doesn't count
  const Table t = read("a.tsv", "a\tb\n1\n2\t3\n4\n", &short_rows);
  EXPECT_EQ(cells_of(t), (Cells{{"2", "3"}}));
  EXPECT_EQ(short_rows, 2u);
  EXPECT_TRUE(t.where(0).ends_with("a.tsv:3"));
  EXPECT_CONTAINS(error_of([&] { read("a.tsv", "a\tb\n1\t2\t3\n", &short_rows); }), "a.tsv:2: has 3 fields");
}

}  // namespace
}  // namespace cald
