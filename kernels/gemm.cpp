// What a product's operands must be, whoever computes it.
#include "kernels/gemm.h"

#include <algorithm>
#include <string>

#include "engine/base/error.h"

namespace cald {
namespace {

void check_operand(const TensorRef& t, const char* what, bool batched) {
  const bool ok =
      batched ? t.shape.rank() == 3 && (t.cols() <= 1 || t.strides[-1] == 1) : t.shape.rank() >= 1 && t.is_matrix();
  if (!ok || (t.dtype != DType::f32 && t.dtype != DType::bf16))
    throw Error(std::string("gemm: ") + what + " of shape " + t.shape.str() + " with strides " + t.strides.str() +
                ", " + name_of(t.dtype) + ", must be f32 or bf16 " +
                (batched ? "[batch, rows, cols]" : "[rows, cols]") + " with unit stride inside a row");
}

GemmOperand operand_of(const TensorRef& t, const char* what, bool transposed, bool batched) {
  if (t.packing == Packing::none) check_operand(t, what, batched);
  const std::int64_t rows = batched ? t.dim(1) : t.rows(), cols = t.cols();
  // Of one row the stride means nothing; libraries want it plausible all the same.
  const std::int64_t step = rows > 1 ? t.row_stride() : std::max<std::int64_t>(cols, 1);
  GemmOperand o = transposed ? GemmOperand{cols, rows, 1, step} : GemmOperand{rows, cols, step, 1};
  if (batched) o.batch_step = t.dim(0) > 1 ? t.strides[0] : rows * step;
  return o;
}

}  // namespace

GemmOperands gemm_operands(const Gemm& g) {
  GemmOperands o{};
  o.a = operand_of(g.a, "a", g.transpose_a, g.batched);
  o.b = operand_of(g.b, "b", g.transpose_b, g.batched);
  if (g.b.packing == (g.transpose_b ? Packing::backward : Packing::forward) || g.a.packing != Packing::none)
    throw Error("gemm: a weight " + g.b.shape.str() + " is packed for another product");
  o.c = operand_of(g.c.to, "c", false, g.batched);
  o.m = o.c.rows, o.n = o.c.cols, o.k = o.a.cols, o.batches = g.batched ? g.c.to.dim(0) : 1;
  const bool fits = o.a.rows == o.m && o.b.rows == o.k && o.b.cols == o.n &&
                    (!g.batched || (g.a.dim(0) == o.batches && g.b.dim(0) == o.batches));
  if (!fits)
    throw Error("gemm: a " + g.a.shape.str() + (g.transpose_a ? "^T" : "") + " times b " + g.b.shape.str() +
                (g.transpose_b ? "^T" : "") + " does not give c " + g.c.to.shape.str());
  const bool rounded = g.a.dtype == DType::bf16 && g.b.dtype == DType::f32 && !g.batched;
  if ((g.a.dtype != g.b.dtype && !rounded) || (g.a.dtype == DType::f32 && g.c.to.dtype != DType::f32))
    throw Error(std::string("gemm: a is ") + name_of(g.a.dtype) + ", b " + name_of(g.b.dtype) + ", c " +
                name_of(g.c.to.dtype) + "; wanted all f32, or a bf16 and, if batched, b too");
  if (g.bias.present && (g.batched || g.bias.numel() != o.n || g.bias.dtype != DType::f32 || !g.bias.is_contiguous()))
    throw Error("gemm: bias has shape " + g.bias.shape.str() + ", wanted f32 [" + std::to_string(o.n) + "]");
  return o;
}

}  // namespace cald
