// A run's page.
#include "app/report.h"

#include "app/report_page.h"
#include "app/report_sections.h"
#include "app/run_data.h"
#include "data/atomic_file.h"

namespace cald {

void write_report(const std::string& run_directory) {
  const RunData run = read_run(run_directory);
  const std::string body = headline(run) + result_section(run) + loss_section(run) + accuracy_section(run) +
                           distance_section(run) + drift_section(run) + conversion_section(run) + memory_section(run) +
                           cost_section(run) + recipe_section(run);
  const std::string model = run.setting("model");
  write_file_atomically(run_directory + "/report.html",
                        html_page("cald: " + run.name, run.method() + (model.empty() ? "" : " of " + model), body));
}

}  // namespace cald
