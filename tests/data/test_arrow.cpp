// Arrow streams and files: every kind of column that is read, and refusal of broken, hostile and other files.
#include <gtest/gtest.h>

#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/arrow.h"
#include "engine/base/rng.h"
#include "tests/data/temp_folder.h"

namespace cald {
namespace {

std::string golden(const std::string& name) { return std::string(CALD_SOURCE_DIR) + "/tests/golden/arrow/" + name; }

std::string bytes_of(const std::string& name) {
  const std::string bytes = content_of(golden(name));
  EXPECT_FALSE(bytes.empty()) << name;
  return bytes;
}

/// Integers as the bytes of a file.
template <class T>
std::string packed(std::initializer_list<T> values) {
  return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(T)};
}

/// Puts `to` in the place of the one occurrence of `from`.
std::string with_change(std::string bytes, const std::string& from, const std::string& to) {
  const std::size_t at = bytes.find(from);
  EXPECT_NE(at, std::string::npos);
  EXPECT_EQ(bytes.find(from, at + 1), std::string::npos);
  return bytes.replace(at, from.size(), to);
}

std::string error_of_bytes(const std::string& bytes) {
  TempFolder dir;
  const std::string path = dir.put("x.arrow", bytes);
  const std::string error = error_of([&] { read_arrow(path); });
  EXPECT_TRUE(error == "no error" || error.starts_with(path)) << error;
  return error;
}

using Values = std::vector<std::optional<std::string>>;

void expect_all_types(const std::string& file) {
  SCOPED_TRACE(file);
  const std::vector<ArrowColumn> columns = read_arrow(golden(file));
  const std::vector<std::pair<std::string, Values>> wanted = {
      {"text", {"plain", "", std::nullopt, "tab\there", "h\u00e9 \u4e2d \U0001f600"}},
      {"large", {std::nullopt, "a", "bc", "", "def"}},
      {"i8", {"-128", "127", "0", std::nullopt, "7"}},
      {"i16", {"-32768", "32767", "0", std::nullopt, "7"}},
      {"i32", {"-2147483648", "2147483647", "0", std::nullopt, "7"}},
      {"i64", {"-9223372036854775808", "9223372036854775807", "0", std::nullopt, "7"}},
      {"u8", {"0", "255", "0", std::nullopt, "7"}},
      {"u16", {"0", "65535", "0", std::nullopt, "7"}},
      {"u32", {"0", "4294967295", "0", std::nullopt, "7"}},
      {"u64", {"0", "18446744073709551615", "0", std::nullopt, "7"}},
  };
  ASSERT_EQ(columns.size(), wanted.size());
  for (std::size_t c = 0; c < wanted.size(); ++c) {
    EXPECT_EQ(columns[c].name, wanted[c].first);
    EXPECT_EQ(columns[c].values, wanted[c].second) << wanted[c].first;
  }
}

TEST(Arrow, ReadsEveryTypeInStreamsFilesAndOldStreams) {
  expect_all_types("types.arrow");
  expect_all_types("file.arrow");
  expect_all_types("legacy.arrow");
}

TEST(Arrow, ReadsPairsAsTheHubHasThem) {
  const std::vector<ArrowColumn> columns = read_arrow(golden("pairs.arrow"));
  ASSERT_EQ(columns.size(), 4u);
  EXPECT_EQ(columns[0].values, (Values{"One first .", "Two first ."}));
  EXPECT_EQ(columns[1].values, (Values{"One second .", "Two second ."}));
  EXPECT_EQ(columns[2].values, (Values{"0", "1"}));
  EXPECT_EQ(columns[3].values, (Values{"8", "9"}));
}

TEST(Arrow, RefusesWhatItDoesNotRead) {
  const auto error = [](const char* file) { return error_of([&] { read_arrow(golden(file)); }); };
  EXPECT_CONTAINS(error("float.arrow"), "column 'x' has the Arrow type float; utf8, large utf8 and int");
  EXPECT_CONTAINS(error("bool.arrow"), "type bool");
  EXPECT_CONTAINS(error("list.arrow"), "type list");
  EXPECT_CONTAINS(error("dictionary.arrow"), "type dictionary");
  EXPECT_CONTAINS(error("lz4.arrow"), "lz4.arrow: compressed");
  EXPECT_CONTAINS(error("absent.arrow"), "absent.arrow: cannot open");
}

TEST(Arrow, RefusesWhatItsBytesContradict) {
  const std::string pairs = bytes_of("pairs.arrow");
  EXPECT_EQ(error_of_bytes(pairs), "no error");
  EXPECT_CONTAINS(error_of_bytes(""), "cut short");
  EXPECT_CONTAINS(error_of_bytes("sentence\tlabel\nfine\t1\n"), "no Arrow stream");
  EXPECT_CONTAINS(error_of_bytes(pairs + "x"), "1 bytes follow the end");
  EXPECT_CONTAINS(error_of_bytes(pairs.substr(0, pairs.size() - 8)), "end mark is missing");
  EXPECT_CONTAINS(error_of_bytes(pairs.substr(0, pairs.size() - 8) + pairs), "doesn't belong there");
  EXPECT_CONTAINS(error_of_bytes(packed<std::uint32_t>({0xFFFFFFFFu, 0})), "without a schema");
  EXPECT_CONTAINS(error_of_bytes(with_change(pairs, "sentence2", "sentence1")),
                  "two columns have the name 'sentence1'");
  EXPECT_CONTAINS(error_of_bytes(with_change(pairs, "Two first", "Two f\xFFrst")),
                  "row 2 of column 'sentence1': broken UTF-8 at byte 5");
  // Offsets and lengths of the buffers of sentence1: offsets 0, 11, 22 of the texts, and 22 bytes of text from 16 on.
  const std::string offsets = packed<std::int32_t>({0, 11, 22});
  const std::string leaves = "a text of column 'sentence1' leaves its buffer";
  EXPECT_CONTAINS(error_of_bytes(with_change(pairs, offsets, packed<std::int32_t>({0, 11, 23}))), leaves);
  EXPECT_CONTAINS(error_of_bytes(with_change(pairs, offsets, packed<std::int32_t>({0, 11, 10}))), leaves);
  EXPECT_CONTAINS(error_of_bytes(with_change(pairs, offsets, packed<std::int32_t>({-1, 11, 22}))), leaves);
  const std::string buffer = packed<std::int64_t>({16, 22});
  EXPECT_CONTAINS(error_of_bytes(with_change(pairs, buffer, packed<std::int64_t>({0, 22}))), "overlap");
  EXPECT_CONTAINS(error_of_bytes(with_change(pairs, buffer, packed<std::int64_t>({16, -1}))), "overlap");
  EXPECT_CONTAINS(error_of_bytes(with_change(pairs, buffer, packed<std::int64_t>({16, 1 << 30}))), "offset leaves");
}

TEST(Arrow, TakesNoMemoryForRowsThatAreOnlyClaimed) {
  std::string pairs = bytes_of("pairs.arrow");
  const std::string two = packed<std::int64_t>({2});
  int changed = 0;
  for (std::size_t at = 0; at + 8 <= pairs.size(); at += 8)  // the batch's length and those of its columns
    if (pairs.compare(at, 8, two) == 0) {
      pairs.replace(at, 8, packed<std::int64_t>({std::int64_t{1} << 60}));
      ++changed;
    }
  EXPECT_EQ(changed, 5);
  EXPECT_CONTAINS(error_of_bytes(pairs), "a batch of 1152921504606846976 rows has fewer values");
}

TEST(Arrow, RefusesFilesCutAnywhere) {
  for (const char* name : {"types.arrow", "file.arrow", "legacy.arrow", "pairs.arrow"}) {
    const std::string bytes = bytes_of(name);
    TempFolder dir;
    const std::string path = dir.put("x.arrow", bytes);
    for (std::size_t n = bytes.size(); n-- > 0;) {
      std::filesystem::resize_file(path, n);
      ASSERT_NE(error_of([&] { read_arrow(path); }), "no error") << name << " cut to " << n;
    }
  }
}

TEST(Arrow, SurvivesBytesChangedAnywhere) {
  RandomStream random(1, stream_of("arrow"));
  TempFolder dir;
  int refused = 0;
  for (const char* name : {"types.arrow", "legacy.arrow", "pairs.arrow"}) {
    const std::string bytes = bytes_of(name);
    for (int trial = 0; trial < 500; ++trial) {
      std::string changed = bytes;
      for (std::uint32_t n = 1 + random.below(3); n > 0; --n) {
        char& c = changed[random.below(static_cast<std::uint32_t>(changed.size()))];
        c = static_cast<char>(trial % 2 ? c ^ (1 << random.below(8)) : random.below(2) ? 0xFF : random.below(256));
      }
      const std::string path = dir.put("x.arrow", changed);
      if (error_of([&] { read_arrow(path); }) != "no error") ++refused;
    }
  }
  EXPECT_GT(refused, 200);
  EXPECT_LT(refused, 1450);
}

}  // namespace
}  // namespace cald
