// The parts of a run's report, each from the run's data to HTML.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "app/run_data.h"

namespace cald {

/// One line of the paper's results.
struct PaperFigure {
  const char* method;  ///< as RunData::method
  const char* name;
  double accuracy;  ///< per cent
};

/// SST-2 dev accuracy of RoBERTa-base converted to Linformer; He & Garner, ICLR 2025, "Joint Fine-tuning and Conversion
/// of Pretrained Speech and Language Models towards Linear Complexity".
const std::vector<PaperFigure>& paper_figures();
/// The paper's accuracy for a method as a text; "-" if it has none.
std::string paper_text(const std::string& method);
/// Says that the paper's figures are those of another model and more data.
std::string paper_remark();

/// mode, with the hybrid stop if there is one: "target, distillation until 60%".
std::string mode_text(const RunData& run);
/// Planned or measured peak memory of the process, whichever the run knows; nothing if neither.
std::optional<double> resident_bytes(const RunData& run);
/// The step at which distillation ends; nothing if it does not.
std::optional<double> hybrid_step(const RunData& run);
/// Share of the computed positions that were pads.
std::optional<double> padding_share(const RunData& run);

std::string headline(const RunData& run);
std::string result_section(const RunData& run);
std::string loss_section(const RunData& run);
std::string accuracy_section(const RunData& run);
std::string distance_section(const RunData& run);
/// Empty for runs that have not measured their drift.
std::string drift_section(const RunData& run);
std::string conversion_section(const RunData& run);
std::string memory_section(const RunData& run);
std::string cost_section(const RunData& run);
std::string recipe_section(const RunData& run);

}  // namespace cald
