// Classification data: columns, labels, the order of batches, padding.
#include "data/task_data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/data/temp_folder.h"

namespace cald {
namespace {

using Names = std::vector<std::string>;

TextDataset load(std::string_view content, const TextColumns& columns = {}, const LabelMap* known = nullptr) {
  const TempFolder folder;
  return load_text_dataset(folder.put("data.tsv", content), columns, known);
}

std::string error(std::string_view content, const TextColumns& columns = {}, const LabelMap* known = nullptr) {
  return error_of([&] { load(content, columns, known); });
}

TEST(LabelMap, NumbersStandForThemselves) {
  const LabelMap map = LabelMap::from_values({"2", "0", "2"});
  EXPECT_EQ(map.names(), (Names{"LABEL_0", "LABEL_1", "LABEL_2"}));
  EXPECT_EQ(map.find("2"), 2);
  EXPECT_EQ(map.find("LABEL_1"), 1);
  EXPECT_EQ(map.find("3"), -1);
  EXPECT_EQ(map.find("-1"), -1);
  EXPECT_EQ(map.find("two"), -1);
  EXPECT_CONTAINS(error_of([] { LabelMap::from_values({"0", "99999999"}); }), "the labels go up to 99999999");
}

TEST(LabelMap, NamesAreNumberedAlphabetically) {
  const LabelMap map = LabelMap::from_values({"not_entailment", "entailment", "not_entailment"});
  EXPECT_EQ(map.names(), (Names{"entailment", "not_entailment"}));
  EXPECT_EQ(map.find("not_entailment"), 1);
}

TEST(LabelMap, AModelsClassesAreFoundByNameAndNumber) {
  const LabelMap map = LabelMap::from_names({"negative", "positive"});
  EXPECT_EQ(map.find("positive"), 1);
  EXPECT_EQ(map.find("1"), 1);
  EXPECT_EQ(map.find("2"), -1);
  // Names that are numbers mean themselves and nothing else.
  const LabelMap stars = LabelMap::from_names({"1", "2", "3"});
  EXPECT_EQ(stars.find("1"), 0);
  EXPECT_EQ(stars.find("0"), -1);
}

TEST(TextDataset, TextsAreTrimmedAndLabelled) {
  const TextDataset d = load("label\tsentence\n1\t it 's good . \n0\t\xC2\xA0 bad\n");
  ASSERT_EQ(d.examples.size(), 2u);
  EXPECT_EQ(d.examples[0].text, "it 's good .");
  EXPECT_EQ(d.examples[0].label, 1);
  EXPECT_TRUE(d.examples[0].labelled);
  EXPECT_FALSE(d.examples[0].has_pair);
  EXPECT_EQ(d.examples[1].text, "\xC2\xA0 bad");  // ASCII white space alone is cut off
}

TEST(TextDataset, TheTextsColumnIsTheFirstOfTheUsual) {
  EXPECT_EQ(load("text\tsentence\tlabel\na\tb\t0\n").examples[0].text, "b");
  EXPECT_EQ(load("premise\ttext\tlabel\na\tb\t0\n").examples[0].text, "b");
  EXPECT_EQ(load("question\tsentence1\tlabel\na\tb\t0\n").examples[0].text, "b");
  EXPECT_EQ(load("premise\tquestion\tlabel\na\tb\t0\n").examples[0].text, "b");
  EXPECT_CONTAINS(error("words\tlabel\na\t0\n"), "there is no column 'sentence'; the columns are 'words', 'label'");
}

TEST(TextDataset, AUsualPairIsReadAsOne) {
  const TextDataset d = load("sentence\tsentence2\tlabel\na\tb\t0\n");
  EXPECT_EQ(d.examples[0].text, "a");
  EXPECT_EQ(d.examples[0].pair, "b");
  EXPECT_EQ(load("sentence\tquestion\tlabel\na\tb\t0\n").examples[0].pair, "a");
  EXPECT_EQ(load("hypothesis\tpremise\tlabel\na\tb\t0\n").examples[0].pair, "a");
  EXPECT_FALSE(load("sentence\tsentence2\tlabel\na\tb\t0\n", {"sentence", "", ""}).examples[0].has_pair);
  EXPECT_EQ(load("sentence\tother\tlabel\na\tb\t0\n", {"", "other", ""}).examples[0].pair, "b");
}

TEST(TextDataset, ColumnsMayBeNamed) {
  const TextDataset d = load("q\ts\tsentence\ty\nwhat\tthat \tx\tno\n", {"q", "s", "y"});
  EXPECT_EQ(d.examples[0].text, "what");
  EXPECT_EQ(d.examples[0].pair, "that");
  EXPECT_TRUE(d.examples[0].has_pair);
  EXPECT_EQ(d.labels.names(), Names{"no"});
  EXPECT_CONTAINS(error("sentence\tlabel\na\t0\n", {"", "other", ""}), "there is no column 'other'");
  EXPECT_CONTAINS(error("sentence\tclass\na\t0\n"), "there is no column 'label'; the columns are 'sentence', 'class'");
}

TEST(TextDataset, LabelsBeyondTheKnownAreErrorsWithTheirLine) {
  const LabelMap known = LabelMap::from_values({"no", "yes"});
  EXPECT_EQ(load("sentence\tlabel\na\tyes\n", {}, &known).examples[0].label, 1);
  EXPECT_CONTAINS(error("sentence\tlabel\na\tyes\nb\tmaybe\n", {}, &known),
                  "data.tsv:3: the label 'maybe' is unknown; the labels are no, yes");
  EXPECT_CONTAINS(error("sentence\tlabel\na\t1\nb\t\n"), "data.tsv:3: the label is empty");
  EXPECT_CONTAINS(error("sentence\tlabel\na\t-1\n"), "data.tsv:2: the label is -1");
  EXPECT_CONTAINS(error("sentence\tlabel\na\t70000\n"), "data.tsv: the labels go up to 70000");
}

/// Lengths that tell examples apart.
std::vector<std::int64_t> lengths(std::int64_t n) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < n; ++i) out.push_back(1 + i * 7919 % 97);
  return out;
}

using Rows = std::vector<std::int64_t>;

TEST(BatchOrder, EveryExampleOnceAnEpoch) {
  for (const std::int64_t n : {1, 2, 7, 8, 9, 1003})
    for (const std::int64_t batch : {1, 4, 8, 2000})
      for (const bool shuffled : {false, true})
        for (const bool bucket : {false, true}) {
          const BatchOrder order(lengths(n), batch, {shuffled, bucket, 5});
          ASSERT_EQ(order.batches_per_epoch(), (n + batch - 1) / batch);
          for (const std::int64_t epoch : {0, 1}) {
            std::set<std::int64_t> seen;
            std::int64_t partial = 0;
            for (std::int64_t b = 0; b < order.batches_per_epoch(); ++b) {
              const Rows rows = order.batch(epoch * order.batches_per_epoch() + b);
              EXPECT_FALSE(rows.empty());
              if (static_cast<std::int64_t>(rows.size()) < batch) ++partial;
              seen.insert(rows.begin(), rows.end());
            }
            EXPECT_EQ(seen.size(), static_cast<std::size_t>(n));
            EXPECT_EQ(*seen.rbegin(), n - 1);
            EXPECT_EQ(partial, n % batch ? 1 : 0);
          }
        }
}

TEST(BatchOrder, GivenWalksTheFileAndBeginsAgain) {
  const BatchOrder order(lengths(5), 2, {false, true, 1});
  EXPECT_EQ(order.batch(0), (Rows{0, 1}));
  EXPECT_EQ(order.batch(1), (Rows{2, 3}));
  EXPECT_EQ(order.batch(2), (Rows{4}));
  EXPECT_EQ(order.batch(3), (Rows{0, 1}));
}

TEST(BatchOrder, ABatchIsTheSameWheneverItIsAskedFor) {
  for (const bool bucket : {false, true}) {
    const BatchOrder forward(lengths(1003), 8, {true, bucket, 9}), jumping(lengths(1003), 8, {true, bucket, 9});
    std::vector<Rows> batches;
    for (std::int64_t n = 0; n < 300; ++n) batches.push_back(forward.batch(n));
    for (const std::int64_t n : {299, 3, 130, 0, 126, 125, 251})
      EXPECT_EQ(jumping.batch(n), batches[static_cast<std::size_t>(n)]) << n;
  }
}

TEST(BatchOrder, SeedsAndEpochsDiffer) {
  const BatchOrder a(lengths(1000), 10, {true, false, 1}), b(lengths(1000), 10, {true, false, 2});
  EXPECT_NE(a.batch(0), b.batch(0));
  EXPECT_NE(a.batch(0), a.batch(100));
  EXPECT_FALSE(std::is_sorted(a.batch(0).begin(), a.batch(0).end()));
}

TEST(BatchOrder, BucketsHoldExamplesOfOneLength) {
  const std::vector<std::int64_t> all = lengths(4000);
  EXPECT_LT(BatchOrder(all, 16, {true, true, 3}).pad_share(), 0.1);
  EXPECT_GT(BatchOrder(all, 16, {true, false, 3}).pad_share(), 0.3);
  // Short and long batches come mixed.
  const BatchOrder order(all, 16, {true, true, 3});
  const auto first = [&](std::int64_t n) { return all[static_cast<std::size_t>(order.batch(n)[0])]; };
  int rises = 0;
  for (std::int64_t n = 0; n + 1 < 50; ++n) rises += first(n + 1) > first(n);
  EXPECT_GT(rises, 10);
  EXPECT_LT(rises, 40);
}

TEST(BatchOrder, PadsAreThePositionsWithoutTokens) {
  // Batches 3 5 | 2 2 | 7: 10 + 4 + 7 positions, 19 tokens.
  EXPECT_DOUBLE_EQ(BatchOrder({3, 5, 2, 2, 7}, 2, {false, false, 0}).pad_share(), 1 - 19.0 / 21.0);
  EXPECT_EQ(BatchOrder({4, 4, 4}, 2, {true, true, 0}).pad_share(), 0);
  EXPECT_EQ(BatchOrder({0, 0}, 2, {false, false, 0}).pad_share(), 0);
}

TEST(BatchOrder, NothingToOrderIsAnError) {
  EXPECT_CONTAINS(error_of([] { BatchOrder({}, 8, {}); }), "needs examples");
  EXPECT_CONTAINS(error_of([] { BatchOrder({1}, 0, {}); }), "the batch size is 0, wanted 1 or more");
}

TEST(TokenBatch, IsPaddedToItsLongest) {
  const std::vector<Tokenizer::Encoding> encodings = {
      {{101, 5, 102}, {0, 0, 0}}, {{101, 6, 7, 8, 102}, {0, 0, 1, 1, 1}}, {{101, 102}, {0, 0}}};
  const TokenBatch b = make_batch(encodings, {7, 8, 9}, {2, 0}, 4);
  using Ids = std::vector<std::int32_t>;
  EXPECT_EQ(b.batch, 2);
  EXPECT_EQ(b.seq, 3);
  EXPECT_EQ(b.input_ids, (Ids{101, 102, 4, 101, 5, 102}));
  EXPECT_EQ(b.mask, (Ids{1, 1, 0, 1, 1, 1}));
  EXPECT_EQ(b.type_ids, Ids(6, 0));
  EXPECT_EQ(b.lengths, (Ids{2, 3}));
  EXPECT_EQ(b.labels, (Ids{9, 7}));
  EXPECT_EQ(b.sample_ids, (Ids{0, 1}));
  EXPECT_EQ(b.valid_tokens(), 5);
  EXPECT_EQ(make_batch(encodings, {7, 8, 9}, {1, 2}, 4).type_ids, (Ids{0, 0, 1, 1, 1, 0, 0, 0, 0, 0}));
}

}  // namespace
}  // namespace cald
