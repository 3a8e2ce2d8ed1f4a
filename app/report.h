// Reports of runs: one self-contained HTML file each, without scripts and without anything from the network.
#pragma once
#include <string>
#include <vector>

namespace cald {

/// Writes RUN/report.html from the files of the run directory. recipe.json must be there; of the others, what is
/// missing is said in its section. Data errors name file and line.
void write_report(const std::string& run_directory);

/// Writes the HTML file `output` with several runs side by side: accuracy, time, memory, tokens per second, the curves
/// of all in one plot, and the settings that differ. A usage error if `runs` is empty.
void write_comparison(const std::vector<std::string>& runs, const std::string& output);

}  // namespace cald
