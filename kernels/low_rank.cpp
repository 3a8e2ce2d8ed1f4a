// What dtypes the low-rank projection takes, whoever computes it.
#include "kernels/low_rank.h"

#include <string>

#include "engine/base/error.h"

namespace cald {
namespace {

bool absent_or(const TensorRef& t, DType dtype) { return !t.present || t.dtype == dtype; }

template <class Args>
bool check(const Args& a, bool others_fit) {
  const DType t = a.x.dtype;
  if ((t != DType::f32 && t != DType::bf16) || a.e.dtype != DType::f32 || !others_fit)
    throw Error(std::string(Args::name) + ": x is " + name_of(t) + ", e " + name_of(a.e.dtype) +
                "; wanted x, y and dy all f32 or all bf16, dx like them or f32, e and de f32");
  return t == DType::bf16;
}

}  // namespace

bool is_bf16(const LowRankForward& a) { return check(a, absent_or(a.y, a.x.dtype)); }

bool is_bf16(const LowRankBackward& a) {
  return check(a, absent_or(a.dy, a.x.dtype) && absent_or(a.de.to, DType::f32) &&
                      (absent_or(a.dx.to, a.x.dtype) || absent_or(a.dx.to, DType::f32)));
}

}  // namespace cald
