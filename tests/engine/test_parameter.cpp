// The set of a model's parameters.
#include "engine/parameter.h"

#include <gtest/gtest.h>

#include "engine/host_access.h"

namespace cald {
namespace {

TEST(ParameterSet, KeepsOrderAndNames) {
  HeapAllocator memory;  // outlives what it gives
  ParameterSet set;
  Parameter& a = set.declare("a", {2, 3});
  for (int i = 0; i < 100; ++i) set.declare("p" + std::to_string(i), {1}, true);
  EXPECT_EQ(set.find("a"), &a) << "addresses stay valid";
  EXPECT_EQ(set.find("none"), nullptr);
  EXPECT_EQ(set.numel(), 106);
  EXPECT_EQ(set.all().front().name, "a");
  EXPECT_TRUE(set.all().back().is_new);
  EXPECT_THROW(set.declare("a", {1}), Error);
  set.allocate(memory, MemClass::teacher);
  EXPECT_TRUE(a.value);
  EXPECT_FALSE(a.grad);
  EXPECT_EQ(memory.bytes_of(MemClass::teacher), 106 * 4u);
}

const Exec kInF32{.compute = DType::f32}, kInBf16{.compute = DType::bf16};

/// Operands, and they alone, take half the memory in bf16, where their values are rounded to the nearest.
TEST(ParameterSet, OperandsMayBeHeldInBf16) {
  HeapAllocator memory;
  ParameterSet set;
  set.declare("bias", {5});
  Parameter& w = set.declare("w", {3, 5});
  w.is_operand = true;
  EXPECT_EQ(set.frozen_bytes(kInF32), 20 * 4u);
  EXPECT_EQ(set.frozen_bytes(kInBf16), 5 * 4u + 15 * 2u);
  set.allocate_frozen(memory, MemClass::teacher, kInBf16);
  EXPECT_EQ(memory.bytes_of(MemClass::teacher), set.frozen_bytes(kInBf16));
  EXPECT_EQ(w.value.dtype(), DType::bf16);
  EXPECT_EQ(set.find("bias")->value.dtype(), DType::f32);
  const float values[] = {1.0f, 1.0f + 1.0f / 256, 1.0f + 3.0f / 256, -3.14159f, 1e-40f};
  w.fill([&](float* to) {
    for (int i = 0; i < 15; ++i) to[i] = values[i % 5];
  });
  const std::uint16_t wanted[] = {0x3f80, 0x3f80, 0x3f82, 0xc049, 0x0001};  // ties go to the even one
  for (int i = 0; i < 15; ++i) EXPECT_EQ(w.value.data<Bf16>()[i].bits, wanted[i % 5]) << i;
}

}  // namespace
}  // namespace cald
