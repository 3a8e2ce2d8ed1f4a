// Embedding sums and the scatter of their gradients.
#include <gtest/gtest.h>

#include "kernels/elementwise.h"
#include "ops/embedding.h"
#include "tests/ops/harness.h"

namespace cald::test {
namespace {

struct IdSet {
  std::int64_t batch, length;
  std::vector<std::int32_t> word, position, type;
  Shape shape() const { return {batch, length}; }
};

IdSet draw_ids(std::int64_t batch, std::int64_t length, std::uint32_t vocabulary) {
  RandomStream random(1, 2);
  IdSet ids{batch, length, {}, {}, {}};
  for (std::int64_t i = 0; i < batch * length; ++i) {
    ids.word.push_back(static_cast<std::int32_t>(random.below(vocabulary)));
    ids.position.push_back(static_cast<std::int32_t>(i % length));
    ids.type.push_back(static_cast<std::int32_t>(random.below(2)));
  }
  return ids;
}

template <class T>
Array<T> embedding(const Inputs<T>& in, const IdSet& ids) {
  Array<T> y({ids.batch, ids.length, in[0].cols()});
  for (std::int64_t i = 0; i < y.rows(); ++i)
    for (std::int64_t j = 0; j < y.cols(); ++j) {
      const auto at = static_cast<std::size_t>(i);
      y.at(i, j) = in[0].at(ids.word[at], j);
      if (in.size() > 1) y.at(i, j) += in[1].at(ids.position[at], j);
      if (in.size() > 2) y.at(i, j) += in[2].at(ids.type[at], j);
    }
  return y;
}

TEST(Embedding, ValuesAndGradients) {
  for (const auto& [batch, length, cols] :
       {std::array{2, 5, 7}, std::array{1, 1, 1}, std::array{0, 3, 4}, std::array{3, 4, 0}, std::array{3, 9, 33}}) {
    const IdSet ids = draw_ids(batch, length, 6);
    const Case c{"embedding, " + std::to_string(cols) + " columns", {{{8, cols}}, {{length + 2, cols}}, {{2, cols}}}};
    check_op(
        c, [&]<class T>(const Inputs<T>& in) { return embedding(in, ids); },
        [&](OpRun& run, const std::vector<Tensor>& in) {
          const EmbeddingSum op{run.ints(ids.shape(), ids.word), run.ints(ids.shape(), ids.position),
                                run.ints(ids.shape(), ids.type)};
          return run.tape.apply(op, in[0], in[1], in[2]);
        });
    check_op(
        {c.name + ", words alone", {c.inputs[0]}}, [&]<class T>(const Inputs<T>& in) { return embedding(in, ids); },
        [&](OpRun& run, const std::vector<Tensor>& in) {
          return run.tape.apply(EmbeddingSum{run.ints(ids.shape(), ids.word), {}, {}}, in[0], Tensor{}, Tensor{});
        });
  }
}

TEST(Embedding, ScatterKeepsTheOrderForAnyNumberOfThreads) {
  constexpr std::int64_t kRows = 700, kTable = 9, kCols = 50;
  const IdSet ids = draw_ids(7, kRows / 7, 5);
  const std::vector<float> dy = normal_values(kRows * kCols, 4, 4);
  std::vector<float> expected(kTable * kCols, 0.0f);  // the plain loop in the order of the rows
  for (std::int64_t i = 0; i < kRows; ++i)
    for (std::int64_t j = 0; j < kCols; ++j)
      expected[static_cast<std::size_t>(ids.word[static_cast<std::size_t>(i)] * kCols + j)] +=
          dy[static_cast<std::size_t>(i * kCols + j)];
  for (int threads : backend().many_threads) {
    Place place(threads);
    Context& context = place;
    const Tensor from = tensor_of(context, {7, kRows / 7, kCols}, dy), word = tensor_of(context, ids.shape(), ids.word);
    const Tensor table = context.empty({kTable, kCols});
    context.launch(EmbeddingBackward{word, from, {table, false}});
    EXPECT_EQ(read(table), expected);
    context.launch(Fill{table, 1.0f});
    context.launch(EmbeddingBackward{word, from, {table, true}});
    EXPECT_NEAR(read(table)[0], expected[0] + 1.0f, 1e-4f);
    EXPECT_EQ(read(table).back(), 1.0f) << "no id names the last row";
  }
}

TEST(Embedding, IdsMayBeShared) {
  // Position ids with stride 0 between samples.
  Place place;
  Context& context = place;
  const Tensor ids = tensor_of(context, {1, 3}, std::vector<std::int32_t>{3, 2, 1});
  const Tensor table = tensor_of(context, {4, 2}, std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7});
  const Tensor y = context.empty({2, 3, 2});
  TensorRef shared = ids;
  shared.shape = {2, 3};
  shared.strides = {0, 1};
  context.launch(EmbeddingForward{shared, {}, {}, table, {}, {}, y});
  EXPECT_EQ(read(y), (std::vector<float>{6, 7, 4, 5, 2, 3, 6, 7, 4, 5, 2, 3}));
}

}  // namespace
}  // namespace cald::test
