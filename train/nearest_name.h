// The known name that a mistyped one probably meant.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace cald {

/// Least number of inserted, deleted, replaced or swapped neighbouring characters between two words (optimal string
/// alignment).
int edit_distance(std::string_view a, std::string_view b);

/// The one of `known` nearest to `word`; the first of equals, empty if there is none.
std::string nearest_name(std::string_view word, const std::vector<std::string>& known);

}  // namespace cald
