// What the commands that take a recipe's settings share.
#pragma once
#include <string>
#include <vector>

#include "train/options.h"

namespace cald {

/// The defaults of commands that convert.
RunOptions conversion_defaults();

/// Sets defaults that depend on others, as a run will use them. Usage errors: a key of `needed` that is not given,
/// values that are out of range or contradict each other. Errors: what this program or machine cannot do.
void resolve(RunOptions& o, const std::vector<std::string>& needed);

}  // namespace cald
