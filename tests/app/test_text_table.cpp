// Tables for the terminal; sizes, durations, numbers as people read them.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "app/text_table.h"
#include "engine/base/error.h"

namespace cald {
namespace {

TEST(TextTable, AlignsTextsLeftAndNumbersRight) {
  TextTable table({"name", "size", "of"});
  table.add_row({"a", "1.5 MiB", "x"});
  table.add_row({"longer", "-", ""});
  table.add_row({"gr\xC3\xBC\xC3\x9F", "-300"});
  EXPECT_EQ(table.str(),
            "name       size  of\n"
            "------  -------  --\n"
            "a       1.5 MiB  x\n"
            "longer        -\n"
            "gr\xC3\xBC\xC3\x9F       -300\n");
}

TEST(TextTable, RefusesRowsBeyondTheHeader) {
  TextTable table({"a"});
  EXPECT_THROW(table.add_row({"1", "2"}), Error);
  EXPECT_EQ(table.str(), "a\n-\n");
}

TEST(Human, Bytes) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.00 KiB");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_bytes(1024.0 * 1024 - 1), "1.00 MiB");
  EXPECT_EQ(human_bytes(601.4 * 1024 * 1024), "601 MiB");
  EXPECT_EQ(human_bytes(std::pow(1024.0, 4) * 5000), "5000 TiB");
}

TEST(Human, Seconds) {
  EXPECT_EQ(human_seconds(0), "0 s");
  EXPECT_EQ(human_seconds(2.5e-9), "2.50 ns");
  EXPECT_EQ(human_seconds(1.5e-5), "15.0 us");
  EXPECT_EQ(human_seconds(0.0123), "12.3 ms");
  EXPECT_EQ(human_seconds(0.9999), "1.00 s");
  EXPECT_EQ(human_seconds(59.97), "1 min 00 s");
  EXPECT_EQ(human_seconds(83), "1 min 23 s");
  EXPECT_EQ(human_seconds(3599.7), "1 h 00 min");
  EXPECT_EQ(human_seconds(4000), "1 h 07 min");
  EXPECT_EQ(human_seconds(-83), "-1 min 23 s");
  EXPECT_EQ(human_seconds(std::nan("")), "-");
}

TEST(Human, NumbersAndShares) {
  EXPECT_EQ(human_number(0), "0");
  EXPECT_EQ(human_number(0.12345), "0.123");
  EXPECT_EQ(human_number(0.00012345), "0.000123");
  EXPECT_EQ(human_number(95.3), "95.3");
  EXPECT_EQ(human_number(9.996), "10.0");
  EXPECT_EQ(human_number(2850.3), "2850");
  EXPECT_EQ(human_number(15234.7), "15 200");
  EXPECT_EQ(human_number(-1234567), "-1 230 000");
  EXPECT_EQ(human_number(std::numeric_limits<double>::infinity()), "inf");
  EXPECT_EQ(human_percent(0.9128), "91.28 %");
  EXPECT_EQ(human_percent(std::nan("")), "-");
}

}  // namespace
}  // namespace cald
