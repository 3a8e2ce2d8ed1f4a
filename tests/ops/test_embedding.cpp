// Embedding sums and the scatter of their gradients.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/elementwise.h"
#include "ops/embedding.h"
#include "tests/ops/harness.h"
#include "tests/ops/weighted_total.h"

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
  for (const auto& [batch, length, cols] : {std::array{2, 5, 7}, std::array{1, 1, 1}, std::array{0, 3, 4},
                                            std::array{3, 4, 0}, std::array{3, 9, 33}, std::array{2, 3, 132}}) {
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
  constexpr std::int64_t kRows = 2100, kTable = 9, kCols = 150;
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

TEST(Embedding, GradientsByRowsAreTheTablesOwn) {
  constexpr std::int64_t kTable = 900, kCols = 19;
  for (const auto& [batch, length] : {std::array{7, 31}, std::array{1, 1}, std::array{0, 4}}) {
    IdSet ids = draw_ids(batch, length, 40);
    for (std::int32_t& id : ids.word) id *= 20;
    const std::int64_t n = batch * length;
    const std::vector<float> dy = normal_values(n * kCols, 4, 4);
    for (int threads : backend().many_threads) {
      Place place(threads);
      Context& context = place;
      const Tensor from = tensor_of(context, {batch, length, kCols}, dy);
      const Tensor word = tensor_of(context, ids.shape(), ids.word);
      const Tensor table = context.empty({kTable, kCols}), few = context.empty({n, kCols});
      const Tensor rows = context.empty({kTable}, DType::i32);
      context.launch(EmbeddingBackward{word, from, {table, false}, 60});
      context.launch(EmbeddingBackward{word, from, {few, false}, 60, rows});
      const std::vector<float> whole = read(table), named = read(few);
      std::vector<std::int32_t> row_of(kTable);
      read_tensor(rows, row_of.data());
      for (std::size_t r = 0; r < kTable; ++r) {
        const auto first = std::find(ids.word.begin(), ids.word.end(), static_cast<std::int32_t>(r));
        const bool is_named = first != ids.word.end() && r != 60;
        ASSERT_EQ(row_of[r], is_named ? first - ids.word.begin() : -1) << r;
        for (std::size_t j = 0; j < kCols; ++j) {
          const float want = is_named ? named[static_cast<std::size_t>(row_of[r]) * kCols + j] : 0.0f;
          ASSERT_EQ(whole[r * kCols + j], want) << r << " " << j;
        }
      }
    }
  }
}

TEST(Embedding, TheTapeTakesAGradientByRowsWhereThatIsLess) {
  Place place;
  Context& context = place;
  ParameterSet parameters;
  for (const char* name : {"long", "short", "kept"}) parameters.declare(name, {name[0] == 's' ? 5 : 50, 3});
  for (Parameter& p : parameters.all()) {
    p.value = context.empty(p.shape);
    context.launch(Fill{p.value, 1.0f});
    p.is_table = p.transient_grad = true;
  }
  Parameter &wide = parameters.all()[0], &narrow = parameters.all()[1], &kept = parameters.all()[2];
  kept.transient_grad = false;
  kept.grad = context.empty(kept.shape);
  const Tensor ids = tensor_of(context, {2, 3}, std::vector<std::int32_t>{4, 2, 4, 0, 2, 4});
  Tape tape(context);
  const Tensor y =
      tape.apply(EmbeddingSum{ids, ids, ids}, tape.parameter(wide), tape.parameter(narrow), tape.parameter(kept));
  tape.backward(tape.apply(WeightedTotal{tensor_of(context, {2, 3, 3}, normal_values(18, 1, 1))}, y));
  EXPECT_EQ(wide.grad.shape().str(), "[6, 3]");
  EXPECT_TRUE(wide.grad_rows);
  EXPECT_EQ(narrow.grad.shape().str(), "[5, 3]") << "six ids are no less than five rows";
  EXPECT_FALSE(narrow.grad_rows);
  EXPECT_EQ(kept.grad.shape().str(), "[50, 3]") << "what is kept may have to be added to";
  const std::vector<float> by_rows = read(wide.grad), whole = read(narrow.grad);
  std::vector<std::int32_t> rows(50);
  read_tensor(wide.grad_rows, rows.data());
  for (std::size_t r : {0u, 2u, 4u})
    for (std::size_t j = 0; j < 3; ++j)
      EXPECT_EQ(by_rows[static_cast<std::size_t>(rows[r]) * 3 + j], whole[r * 3 + j]) << r;
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
