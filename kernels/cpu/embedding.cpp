// Look-up of rows and their deterministic scatter.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/embedding.cpp"
#include "kernels/cpu/simd.h"

// After simd.h, which includes this file once for each target.
#include <algorithm>
#include <string>

#include "kernels/cpu/parallel.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"

HWY_BEFORE_NAMESPACE();
namespace cald::HWY_NAMESPACE {

/// y = a + b + c; b and c may be null.
void sum_rows(const float* a, const float* b, const float* c, float* y, std::int64_t n) {
  const Floats d;
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
    FloatVec v = load(d, a + i, part);
    if (b != nullptr) v = Add(v, load(d, b + i, part));
    if (c != nullptr) v = Add(v, load(d, c + i, part));
    store(d, v, y + i, part);
  });
}

/// y += x.
void add_row(const float* x, float* y, std::int64_t n) {
  const Floats d;
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR {
    store(d, Add(load(d, y + i, part), load(d, x + i, part)), y + i, part);
  });
}

/// y = x.
void copy_row(const float* x, float* y, std::int64_t n) {
  const Floats d;
  each_vector(d, n, [&](std::int64_t i, auto part) HWY_ATTR { store(d, load(d, x + i, part), y + i, part); });
}

}  // namespace cald::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cald {
HWY_EXPORT(sum_rows);
HWY_EXPORT(add_row);
HWY_EXPORT(copy_row);

namespace {

/// ids (B, S) i32 with any strides; also one stride 0, as position ids shared by all samples have.
struct Ids {
  const std::int32_t* data;
  std::int64_t length, row_step, step;

  Ids(const char* kernel, const TensorRef& ids) {
    if (ids.shape.rank() != 2 || ids.dtype != DType::i32)
      throw Error(std::string(kernel) + ": ids of shape " + ids.shape.str() + " must be (B, S) i32");
    data = ids.as<std::int32_t>();
    length = ids.dim(1), row_step = ids.strides[0], step = ids.strides[1];
  }
  std::int64_t operator[](std::int64_t i) const { return data[i / length * row_step + i % length * step]; }
};

/// One table with its ids, or none.
struct Table {
  const float* data = nullptr;
  std::int64_t stride = 0;
  Ids ids;

  Table(const TensorRef& table, const TensorRef& given, const TensorRef& word_ids)
      : ids(EmbeddingForward::name, table.present ? given : word_ids) {
    if (!table.present) return;
    data = table.f32();
    stride = table.row_stride();
  }
  const float* row(std::int64_t i) const { return data != nullptr ? data + ids[i] * stride : nullptr; }
};

/// rows[id] = the first i with that id, -1 for none.
void note_first(const EmbeddingBackward& a, const Ids& ids, std::int64_t n) {
  auto* first = a.rows.as<std::int32_t>();
  std::fill_n(first, a.rows.numel(), -1);
  for (std::int64_t i = 0; i < n; ++i)
    if (ids[i] != a.frozen && first[ids[i]] < 0) first[ids[i]] = static_cast<std::int32_t>(i);
}

}  // namespace

template <>
void run<Device::cpu>(Exec& exec, const EmbeddingForward& a) {
  const Table word(a.word, a.word_ids, a.word_ids), position(a.position, a.position_ids, a.word_ids);
  const Table type(a.type, a.type_ids, a.word_ids);
  const std::int64_t cols = a.y.cols(), grain = std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(cols, 1));
  if (!a.y.is_matrix()) throw Error("embedding: y of shape " + a.y.shape.str() + " must have one stride between rows");
  const auto kernel = HWY_DYNAMIC_DISPATCH(sum_rows);
  parallel_for(exec, a.word_ids.numel(), grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      kernel(word.row(i), position.row(i), type.row(i), a.y.f32() + i * a.y.row_stride(), cols);
  });
}

template <>
std::size_t workspace_bytes<Device::cpu>(const Exec&, const EmbeddingBackward&) {
  return 0;
}

template <>
void run<Device::cpu>(Exec& exec, const EmbeddingBackward& a) {
  const TensorRef& table = a.dtable.to;
  const std::int64_t cols = table.cols(), n = a.ids.numel();
  const Ids ids(EmbeddingBackward::name, a.ids);
  if (!a.dy.is_matrix() || a.dy.rows() != n || a.dy.cols() != cols)
    throw Error("embedding_backward: dy " + a.dy.shape.str() + " does not fit ids " + a.ids.shape.str() +
                " and a table " + table.shape.str());
  const bool by_rows = a.rows.present;
  if (by_rows && (a.dtable.add || table.rows() != n))
    throw Error("embedding_backward: by rows, a gradient of shape " + table.shape.str() +
                " must be set, one row an id");
  const auto row_of_table = [&](std::int64_t i) { return table.f32() + i * table.row_stride(); };
  if (by_rows)
    note_first(a, ids, n);
  else if (!a.dtable.add)
    run<Device::cpu>(exec, Fill{table, 0.0f});
  const std::int32_t* first_of = by_rows ? a.rows.as<std::int32_t>() : nullptr;
  // Each thread owns some columns (whole cache lines of 16) and takes the rows in their order. So no two threads meet,
  // nothing is sorted, and a table of two rows is shared as evenly as one of thirty thousand.
  constexpr std::int64_t kLine = 16;
  const std::int64_t grain = std::max<std::int64_t>(1, 2048 / std::max<std::int64_t>(n, 1));
  const auto add = HWY_DYNAMIC_DISPATCH(add_row), set = HWY_DYNAMIC_DISPATCH(copy_row);
  parallel_for(exec, (cols + kLine - 1) / kLine, grain, [&](std::int64_t first, std::int64_t last) {
    const std::int64_t from = first * kLine, width = std::min(last * kLine, cols) - from;
    for (std::int64_t i = 0; i < n; ++i) {
      if (ids[i] == a.frozen) continue;
      const std::int64_t row = by_rows ? first_of[ids[i]] : ids[i];
      const auto kernel = by_rows && row == i ? set : add;
      kernel(a.dy.f32() + i * a.dy.row_stride() + from, row_of_table(row) + from, width);
    }
  });
}

}  // namespace cald
#endif  // HWY_ONCE
