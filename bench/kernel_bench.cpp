#include "bench/kernel_bench.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>

#include "bench/kernel_kit.h"
#include "data/atomic_file.h"
#include "engine/open_device.h"

namespace cald {
namespace {

/// A line of the table as soon as a benchmark is done, and Google Benchmark's JSON of all of them.
class Report : public benchmark::BenchmarkReporter {
 public:
  explicit Report(std::FILE* out) : out_(out) {
    json_.SetOutputStream(&text_);
    json_.SetErrorStream(&text_);
  }
  bool ReportContext(const Context& context) override {
    std::fprintf(out_, "%-46s %12s %10s %10s %9s %8s\n", "kernel", "time", "GFLOP/s", "GB/s", "of peak", "spread");
    return json_.ReportContext(context);
  }
  void ReportRuns(const std::vector<Run>& runs) override {
    json_.ReportRuns(runs);
    std::vector<const Run*> measured;
    for (const Run& r : runs)
      if (r.run_type == Run::RT_Iteration) measured.push_back(&r);
    if (measured.empty()) return;
    std::sort(measured.begin(), measured.end(), [](const Run* a, const Run* b) { return seconds(*a) < seconds(*b); });
    const Run& median = *measured[measured.size() / 2];
    const auto value = [&](const char* counter) {
      const auto it = median.counters.find(counter);
      return it == median.counters.end() ? 0.0 : it->second.value;
    };
    const double spread = seconds(*measured.back()) / seconds(*measured.front()) - 1;
    std::fprintf(out_, "%-46s %9.1f us %10.1f %10.1f %7.0f %% %6.0f %%\n", median.run_name.function_name.c_str(),
                 seconds(median) * 1e6, value("flop_per_second") / 1e9, value("bytes_per_second") / 1e9,
                 100 * value("share_of_peak"), 100 * spread);
    std::fflush(out_);
  }
  void Finalize() override { json_.Finalize(); }
  std::string json() const { return text_.str(); }

 private:
  static double seconds(const Run& r) { return r.real_accumulated_time / static_cast<double>(r.iterations); }

  std::FILE* out_;
  std::ostringstream text_;
  benchmark::JSONReporter json_;
};

std::vector<std::pair<const KernelCase*, const StepShape*>> choose(const std::vector<KernelCase>& cases,
                                                                   const KernelBenchOptions& o) {
  std::vector<std::pair<const KernelCase*, const StepShape*>> chosen;
  try {
    const std::regex filter(o.filter);
    for (const StepShape& s : o.shapes)
      for (const KernelCase& c : cases)
        if (std::regex_search(c.name + "/" + s.name, filter)) chosen.emplace_back(&c, &s);
  } catch (const std::regex_error&) {
    throw usage_error("--filter '" + o.filter + "' is not a regular expression");
  }
  if (chosen.empty())
    throw usage_error("--filter '" + o.filter + "' matches no benchmark; names are like " + cases.front().name + "/" +
                      o.shapes.front().name);
  return chosen;
}

}  // namespace

std::vector<StepShape> default_shapes() {
  return {{"mini", 32, 128, 384, 12, 1536, 128, 30522}, {"base", 8, 128, 768, 12, 3072, 128, 50265}};
}

StepShape parse_shape(const std::string& text) {
  std::vector<std::int64_t> extents;
  const char *at = text.data(), *end = at + text.size();
  bool good = true;
  while (good) {
    std::int64_t n = 0;
    const auto [rest, error] = std::from_chars(at, end, n);
    good = error == std::errc{} && n > 0 && n < (1 << 24);
    extents.push_back(n);
    at = rest;
    if (at == end || !good) break;
    good = *at++ == ',';
  }
  const std::size_t given = extents.size();
  if (given < 4) extents.resize(4, 12);
  if (given < 5 && given >= 3) extents.push_back(4 * extents[2]);
  if (given < 6) extents.resize(6, 128);
  if (!good || given < 3 || given > 6 || extents[2] % extents[3] != 0)
    throw usage_error("--shape '" + text +
                      "': wanted batch,seq,hidden[,heads[,ffn[,slots]]], hidden a multiple of heads (12)");
  return {text, extents[0], extents[1], extents[2], extents[3], extents[4], extents[5], 30522};
}

void run_kernel_benchmarks(const KernelBenchOptions& o, std::FILE* out) {
  const std::vector<KernelCase> cases = kernel_cases();
  const auto chosen = choose(cases, o);
  const OpenDevice device(o.exec);
  const Exec& exec = device.exec();
  const Peak peak = measure_peak(exec, exec.compute == DType::bf16, 1.0);
  std::fprintf(out, "peak: %s; threads: %d\n", peak.text().c_str(), o.exec.threads);
  for (const auto& [c, s] : chosen) {
    auto* b = benchmark::RegisterBenchmark((c->name + "/" + s->name).c_str(),
                                           [c = c, s = s, &exec, &peak](benchmark::State& state) {
                                             KernelKit kit(state, exec, peak);
                                             c->run(kit, *s);
                                           });
    b->UseRealTime()->Unit(benchmark::kMicrosecond)->Repetitions(static_cast<int>(o.repetitions));
    if (o.iterations > 0)
      b->Iterations(o.iterations);
    else
      b->MinTime(0.1);
  }
  Report report(out);
  benchmark::RunSpecifiedBenchmarks(&report, "all");
  benchmark::ClearRegisteredBenchmarks();
  if (o.json.empty()) return;
  auto j = nlohmann::ordered_json::parse(report.json());
  j["context"].update({{"threads", o.exec.threads},
                       {"dtype", name_of(o.exec.compute)},
                       {"peak_flop_per_second", peak.flop_per_s},
                       {"peak_bf16_flop_per_second", peak.bf16_flop_per_s},
                       {"peak_bytes_per_second", peak.bytes_per_s}});
  write_file_atomically(o.json, j.dump(1) + "\n");
}

}  // namespace cald
