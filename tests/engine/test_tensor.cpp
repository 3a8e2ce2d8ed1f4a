// Shapes, tensors and their views.
#include "engine/tensor.h"

#include <gtest/gtest.h>

namespace cald {
namespace {

TEST(Shape, CountsAndPrints) {
  const Shape s{2, 3, 4};
  EXPECT_EQ(s.numel(), 24);
  EXPECT_EQ(s[-1], 4);
  EXPECT_EQ(s.str(), "[2, 3, 4]");
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ((Shape{3, 0}).numel(), 0);
  EXPECT_FALSE(s == (Shape{2, 3}));
  EXPECT_EQ(contiguous_strides(s), (Shape{12, 4, 1}));
  EXPECT_THROW((Shape{1, 2, 3, 4, 5}), Error);
}

class TensorTest : public testing::Test {
 protected:
  Tensor make(const Shape& s, DType t = DType::f32) {
    const auto bytes = static_cast<std::size_t>(s.numel()) * size_of(t);
    return {memory_.allocate(bytes, MemClass::activations, "test"), s, t};
  }
  HeapAllocator memory_;
};

TEST_F(TensorTest, AbsentTensor) {
  const Tensor t;
  EXPECT_FALSE(t);
  EXPECT_FALSE(t.ref().present);
  EXPECT_EQ(t.variable(), -1);
}

TEST_F(TensorTest, ViewSharesTheElements) {
  const Tensor t = make({2, 6});
  const Tensor v = t.view({3, 4});
  EXPECT_EQ(v.data<float>(), t.data<float>());
  EXPECT_EQ(v.strides(), (Shape{4, 1}));
  EXPECT_FALSE(t.owns_alone());
  EXPECT_THROW(t.view({5}), Error);
}

TEST_F(TensorTest, NarrowIsAStridedView) {
  const Tensor t = make({4, 6, 10});
  const Tensor v = t.narrow(-1, 3, 7);
  EXPECT_EQ(v.shape(), (Shape{4, 6, 4}));
  EXPECT_EQ(v.data<float>(), t.data<float>() + 3);
  EXPECT_TRUE(v.ref().is_matrix());
  EXPECT_FALSE(v.ref().is_contiguous());
  EXPECT_EQ(v.ref().row_stride(), 10);
  EXPECT_THROW(v.view({96}), Error);
  const Tensor again = v.narrow(1, 2, 5).narrow(0, 1, 2);
  EXPECT_EQ(again.data<float>(), t.data<float>() + 3 + 2 * 10 + 60);
  EXPECT_EQ(again.shape(), (Shape{1, 3, 4}));
  const Tensor middle = t.narrow(1, 0, 3);
  EXPECT_FALSE(middle.ref().is_matrix()) << "rows of different samples do not follow each other";
  EXPECT_TRUE(t.narrow(0, 1, 3).ref().is_contiguous());
  EXPECT_EQ(t.narrow(1, 2, 2).numel(), 0);
}

TEST_F(TensorTest, NarrowNamesWhatIsOutOfRange) {
  const Tensor t = make({4, 6});
  EXPECT_THROW(t.narrow(2, 0, 1), Error);
  EXPECT_THROW(t.narrow(0, -1, 1), Error);
  EXPECT_THROW(t.narrow(0, 3, 2), Error);
  try {
    t.narrow(1, 3, 7);
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "narrow: [3, 7) of dimension 1 of [4, 6]");
  }
}

TEST_F(TensorTest, OffsetsCountElementsOfTheDtype) {
  for (DType d : {DType::bf16, DType::i64, DType::boolean}) {
    const Tensor t = make({5, 3}, d);
    const auto* base = t.data<std::byte>();
    EXPECT_EQ(t.narrow(0, 2, 4).data<std::byte>(), base + 6 * size_of(d));
    EXPECT_EQ(t.bytes(), 15 * size_of(d));
  }
}

TEST_F(TensorTest, RowsAndColumns) {
  EXPECT_EQ(make({2, 3, 5}).rows(), 6);
  EXPECT_EQ(make({2, 3, 5}).cols(), 5);
  EXPECT_EQ(make({7}).rows(), 1);
  EXPECT_EQ(make({}).cols(), 1);
  EXPECT_EQ(make({0, 5}).rows(), 0);
  EXPECT_EQ(make({3, 0}).rows(), 3);
}

TEST_F(TensorTest, StorageEndsWithItsLastView) {
  Tensor v;
  {
    const Tensor t = make({8});
    v = t.narrow(0, 2, 3);
  }
  EXPECT_EQ(memory_.live_bytes(), 32u);
  v = {};
  EXPECT_EQ(memory_.live_bytes(), 0u);
}

}  // namespace
}  // namespace cald
