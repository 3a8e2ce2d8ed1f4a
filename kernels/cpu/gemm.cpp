// Matrix products by oneDNN's matmul primitive (2.6); no other file knows oneDNN. The sum of columns is plain code.
#include "kernels/gemm.h"

#include <omp.h>

#include <algorithm>
#include <dnnl.hpp>
#include <string>
#include <string_view>
#include <unordered_map>

#include "kernels/cpu/gemm_panels.h"
#include "kernels/elementwise.h"

namespace cald {
namespace {

/// One operand as oneDNN sees it: extents in the product's order, strides in elements.
struct Layout {
  dnnl::memory::dims dims, strides;
  dnnl::memory::data_type type = dnnl::memory::data_type::f32;
  bool operator==(const Layout&) const = default;
};

struct Operands {
  GemmOperands sizes;
  Layout a, b, c;
};

Layout layout_of(const GemmOperand& t, DType dtype, bool batched, std::int64_t batches) {
  Layout l{{t.rows, t.cols}, {t.row_step, t.col_step}};
  if (dtype == DType::bf16) l.type = dnnl::memory::data_type::bf16;
  if (batched) {
    l.dims.insert(l.dims.begin(), batches);
    l.strides.insert(l.strides.begin(), t.batch_step);
  }
  return l;
}

bool is_packed(const Gemm& g) { return g.b.packing != Packing::none; }
bool is_rounded(const Gemm& g) { return g.b.dtype != g.a.dtype; }

Operands operands_of(const Gemm& g) {
  const GemmOperands sizes = gemm_operands(g);
  if (g.a.dtype == DType::bf16 && !cpu_has_bf16())
    throw Error("gemm: this processor has no bf16 instructions (avx512_bf16); use f32");
  GemmOperand b = sizes.b;
  if (is_rounded(g)) (g.transpose_b ? b.col_step : b.row_step) = std::max<std::int64_t>(g.b.cols(), 1);  // no gaps
  return {sizes, layout_of(sizes.a, g.a.dtype, g.batched, sizes.batches),
          layout_of(b, g.a.dtype, g.batched, sizes.batches),
          layout_of(sizes.c, g.c.to.dtype, g.batched, sizes.batches)};
}

/// What a primitive is compiled for. With alpha, bias is not oneDNN's (it would be scaled too), see run().
struct Key {
  Layout a, b, c;
  bool bias, add, panels;  ///< with panels, b's strides mean nothing
  float alpha;
  int threads;
  bool operator==(const Key&) const = default;
};

struct KeyHash {
  std::size_t operator()(const Key& k) const {
    std::uint64_t h =
        (k.panels ? 4u : 0u) + (k.bias ? 2u : 0u) + (k.add ? 1u : 0u) + 8u * static_cast<unsigned>(k.threads);
    for (const Layout* l : {&k.a, &k.b, &k.c})
      for (const auto* v : {&l->dims, &l->strides})
        for (std::int64_t x : *v) h = (h ^ static_cast<std::uint64_t>(x)) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 32);
  }
};

struct Compiled {
  dnnl::matmul::primitive_desc desc;
  dnnl::matmul primitive;
  std::uint64_t last_use = 0;
};

/// Whether a product is for the older of oneDNN's two implementations, which packs both operands. Its first choice,
/// small blocks of what lies there, takes up to 14 % longer where c is f32 and b is not transposed: for gradients of
/// weights and, if they are f32, of inputs. Elsewhere the older one is slower by up to a quarter.
bool is_for_packing(const Key& key) {
  return !key.panels && key.c.dims.size() == 2 && key.c.type == dnnl::memory::data_type::f32 &&
         key.b.strides.back() == 1;
}
/// The first implementation in oneDNN's list that packs, or the list's first if there is none.
dnnl::matmul::primitive_desc packing_or_first(const dnnl::matmul::primitive_desc& first) {
  dnnl::matmul::primitive_desc pd = first;
  do {
    if (std::string_view(pd.impl_info_str()).starts_with("gemm")) return pd;
  } while (pd.next_impl());
  return first;
}

/// oneDNN's handles and the compiled products of one thread of control.
///
/// oneDNN has its own cache, but asking it costs 0.03 ms and more a call, as much as a small product takes. Compiled
/// products hold no tensor and no result depends on what is cached, so a cache beside it is safe; it belongs to the
/// calling thread, which spares a lock.
struct Library {
  static constexpr std::size_t kMaxCompiled = 256;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::unordered_map<Key, Compiled, KeyHash> compiled;
  std::uint64_t clock = 0;

  static Library& here() {
    static thread_local Library library;
    return library;
  }

  Compiled& find(const Key& key) {
    auto it = compiled.find(key);
    if (it == compiled.end()) {
      if (compiled.size() == kMaxCompiled) drop_oldest();
      it = compiled.emplace(key, compile(key)).first;
    }
    it->second.last_use = ++clock;
    return it->second;
  }

 private:
  void drop_oldest() {
    auto oldest = compiled.begin();
    for (auto it = compiled.begin(); it != compiled.end(); ++it)
      if (it->second.last_use < oldest->second.last_use) oldest = it;
    compiled.erase(oldest);
  }

  Compiled compile(const Key& key) {
    const auto desc_of = [&](const Layout& l) { return dnnl::memory::desc(l.dims, l.type, l.strides); };
    const std::int64_t n = key.c.dims.back();
    const dnnl::memory::desc b =
        key.panels ? dnnl::memory::desc(key.b.dims, key.b.type, dnnl::memory::format_tag::BA16a64b2a) : desc_of(key.b);
    const dnnl::matmul::desc desc =
        key.bias ? dnnl::matmul::desc(desc_of(key.a), b, desc_of({{1, n}, {n, 1}}), desc_of(key.c))
                 : dnnl::matmul::desc(desc_of(key.a), b, desc_of(key.c));
    dnnl::primitive_attr attr;
    attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (key.alpha != 1.0f) attr.set_output_scales(0, {key.alpha});
    if (key.add) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attr.set_post_ops(sum);
    }
    const dnnl::matmul::primitive_desc first(desc, attr, engine);
    const dnnl::matmul::primitive_desc pd = is_for_packing(key) ? packing_or_first(first) : first;
    if (key.panels && !std::string_view(pd.impl_info_str()).starts_with("brg"))
      throw Error("gemm: this oneDNN has no kernels for panels of 64 columns");
    return {pd, dnnl::matmul(pd)};
  }
};

/// oneDNN takes its number of threads from OpenMP's setting of the calling thread.
class ThreadCount {
 public:
  explicit ThreadCount(int n) : before_(omp_get_max_threads()) { omp_set_num_threads(n); }
  ~ThreadCount() { omp_set_num_threads(before_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
};

/// Whether b, or its transpose, has the columns for which oneDNN's kernels want panels of 64; fewer make narrower ones.
bool fills_panels(std::int64_t rows, std::int64_t cols) { return std::min(rows, cols) >= GemmPanels::kWidth; }

/// Products without any element of a or b are left to run() itself.
bool is_empty(const Operands& o, const Gemm& g) { return g.c.to.numel() == 0 || o.sizes.k == 0; }

/// The bias goes through oneDNN unless alpha would scale it.
bool bias_apart(const Gemm& g) { return g.bias.present && g.alpha != 1.0f; }

Key key_of(const Operands& o, const Gemm& g, const Exec& exec) {
  return {o.a,
          o.b,
          o.c,
          g.bias.present && !bias_apart(g),
          g.c.add || bias_apart(g),
          is_packed(g) || (is_rounded(g) && fills_panels(o.sizes.k, o.sizes.n)),
          g.alpha,
          std::max(exec.threads, 1)};
}

GemmPanels panels_of(const Operands& o) { return {o.sizes.k, o.sizes.n}; }

/// Bytes of the workspace that b takes, rounded.
std::size_t rounded_bytes(const Operands& o, const Gemm& g, const Key& key) {
  if (!is_rounded(g)) return 0;
  if (key.panels) return panels_of(o).bytes();
  constexpr std::size_t kAlignment = 64;
  const std::size_t bytes = static_cast<std::size_t>(g.b.numel()) * size_of(DType::bf16);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}
/// Rounds b into the workspace, packing it where it fills panels: that costs no more.
void round_b(Exec& exec, const Gemm& g, const Key& key) {
  if (key.panels) {
    PanelPacking p = PanelPacking::of(g.b, false);
    (g.transpose_b ? p.forward : p.backward) = exec.workspace;
    return pack_panels(exec, p);
  }
  run<Device::cpu>(exec, Copy{g.b, {exec.workspace, DType::bf16, g.b.shape, contiguous_strides(g.b.shape), true}});
}

template <class Fn>
auto with_library(const Operands& o, int threads, const Fn& fn) {
  try {
    const ThreadCount set(threads);
    return fn(Library::here());
  } catch (const dnnl::error& e) {
    throw Error("gemm: oneDNN: " + std::string(e.what()) + " (M " + std::to_string(o.sizes.m) + ", N " +
                std::to_string(o.sizes.n) + ", K " + std::to_string(o.sizes.k) + ")");
  }
}

/// c's rows become (or are increased by) the bias, or become zero without one.
void start_from_bias(const Operands& o, const Gemm& g) {
  if (g.c.add && !g.bias.present) return;
  if (g.c.to.numel() == 0) return;
  if (g.c.to.dtype != DType::f32)
    throw Error("gemm: c in bf16 takes neither K = 0 nor a bias beside alpha, got K " + std::to_string(o.sizes.k));
  const GemmOperand& c = o.sizes.c;
  for (std::int64_t i = 0; i < o.sizes.batches; ++i)
    for (std::int64_t r = 0; r < o.sizes.m; ++r) {
      float* row = g.c.to.f32() + i * c.batch_step + r * c.row_step;
      for (std::int64_t j = 0; j < o.sizes.n; ++j)
        row[j] = (g.c.add ? row[j] : 0.0f) + (g.bias.present ? g.bias.f32()[j] : 0.0f);
    }
}

}  // namespace

bool cpu_has_bf16() { return __builtin_cpu_supports("avx512bf16") != 0; }

template <>
std::size_t packed_bytes<Device::cpu>(const Shape& weight, Packing packing) {
  // Of the products for which a weight is packed, one has its rows as columns, the other its columns.
  if (!cpu_has_bf16() || !fills_panels(weight[0], weight[1])) return 0;
  return panels_of(weight, packing).bytes();
}

template <>
std::size_t workspace_bytes<Device::cpu>(const Exec& exec, const Gemm& g) {
  const Operands o = operands_of(g);
  if (is_empty(o, g)) return 0;
  const Key key = key_of(o, g, exec);
  return rounded_bytes(o, g, key) +
         with_library(o, key.threads, [&](Library& l) { return l.find(key).desc.scratchpad_desc().get_size(); });
}

template <>
void run<Device::cpu>(Exec& exec, const Gemm& g) {
  const Operands o = operands_of(g);
  if (is_empty(o, g)) return start_from_bias(o, g);
  if (bias_apart(g)) start_from_bias(o, g);
  const Key key = key_of(o, g, exec);
  if (is_rounded(g)) round_b(exec, g, key);
  void* const b = is_rounded(g) ? exec.workspace : g.b.data;
  void* const scratch = static_cast<std::byte*>(exec.workspace) + rounded_bytes(o, g, key);
  with_library(o, key.threads, [&](Library& l) {
    Compiled& c = l.find(key);
    const auto memory = [&](const dnnl::memory::desc& d, void* data) { return dnnl::memory(d, l.engine, data); };
    std::unordered_map<int, dnnl::memory> args{{DNNL_ARG_SRC, memory(c.desc.src_desc(), g.a.data)},
                                               {DNNL_ARG_WEIGHTS, memory(c.desc.weights_desc(), b)},
                                               {DNNL_ARG_DST, memory(c.desc.dst_desc(), g.c.to.data)},
                                               {DNNL_ARG_SCRATCHPAD, memory(c.desc.scratchpad_desc(), scratch)}};
    if (key.bias) args.emplace(DNNL_ARG_BIAS, memory(c.desc.bias_desc(), g.bias.data));
    c.primitive.execute(l.stream, args);
    l.stream.wait();
  });
}

}  // namespace cald
